//! Fetches the service's URL as a client does, and tells whether the page is there.

use std::error::Error;
use std::io;
use std::time::Duration;

use aws_smithy_http_client::Connector;
use aws_smithy_runtime_api::client::dns::ResolveDnsError;
use aws_smithy_runtime_api::client::http::HttpConnector as _;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::http::Headers;
use aws_smithy_types::body::SdkBody;
use http_body_util::{BodyExt as _, Limited};
use shared::https;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::error::PageError;

/// The status of a page that is up.
const UNAVAILABLE: u16 = 503;
/// What the page has in it, with the incident behind.
const MARKER: &str = r#"<meta name="forgeguard-incident" content=""#;
/// How long the URL may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// With this header AWS WAF asks the client for a proof (AWS WAF Developer Guide, "CAPTCHA and Challenge action behavior").
const WAF_ACTION: &str = "x-amzn-waf-action";
/// With this one API Gateway names the kind of an error of its own.
const ERROR_TYPE: &str = "x-amzn-errortype";
/// How much of an answer is read.
const ENOUGH: usize = 256 * 1024;

/// What a client sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The status.
    pub status: u16,
    /// The incident that the page names, where the answer is the page.
    pub incident: Option<String>,
    /// What refuses this client, where it may be something before the page and the service.
    pub refused_by: Option<&'static str>,
}

impl Seen {
    /// Whether it is the page.
    #[must_use]
    pub fn is_page(&self) -> bool {
        self.status == UNAVAILABLE && self.incident.is_some()
    }

    /// Whether it is the page of this incident.
    #[must_use]
    pub fn is_page_of(&self, incident: &str) -> bool {
        self.is_page() && self.incident.as_deref() == Some(incident)
    }

    /// What is seen in the place of a page that was put up. A refusal says nothing of what other clients see.
    #[must_use]
    pub fn instead_of_the_page(&self, url: &str) -> String {
        let status = self.status;
        match (self.refused_by, &self.incident) {
            (_, Some(incident)) => format!("{url} answers {status} with the page of {incident}"),
            (Some(by), None) => format!(
                "the page cannot be seen from here: {url} answers this function {status}, a refusal by {by}; look from where the clients are"
            ),
            (None, None) => format!("{url} answers {status}, and does not show the page yet"),
        }
    }

    /// What is seen of the service once the page is gone.
    #[must_use]
    pub fn of_the_service(&self, url: &str) -> String {
        let answers = format!("{url} answers {}", self.status);
        match self.refused_by {
            Some(by) => format!(
                "{answers}, a refusal of this function by {by}; what the service answers to others cannot be seen from here"
            ),
            None => answers,
        }
    }
}

/// A client of the service.
#[derive(Debug, Default)]
pub struct Probe {
    connector: OnceCell<Connector>,
}

impl Probe {
    /// Fetches the URL.
    pub async fn fetch(&self, url: &str) -> Result<Seen, PageError> {
        timeout(PATIENCE, self.seen(url))
            .await
            .unwrap_or_else(|_| Err(format!("no answer in {} s", PATIENCE.as_secs())))
            .map_err(|why| PageError::Unreachable {
                url: url.to_owned(),
                why,
            })
    }

    async fn seen(&self, url: &str) -> Result<Seen, String> {
        let connector = self
            .connector
            .get_or_try_init(|| async { https::connector() })
            .await
            .map_err(|error| error.to_string())?;
        let mut request = HttpRequest::new(SdkBody::empty());
        request.set_uri(url).map_err(|error| error.to_string())?;
        let headers = request.headers_mut();
        headers.insert("user-agent", "forgeguard-maintenance-page");
        headers.insert("accept", "text/html");
        headers.insert("cache-control", "no-cache");
        let answer = connector.call(request).await;
        let answer = answer.map_err(|error| failure(&error))?;
        let status = answer.status().as_u16();
        let headers = answer.headers().clone();
        let body = Limited::new(answer.into_body(), ENOUGH).collect().await;
        // An answer that is too long for the page is not the page.
        let body = body
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        let body = String::from_utf8_lossy(&body);
        Ok(Seen {
            status,
            incident: incident(&body),
            refused_by: refused_by(status, &headers, &body),
        })
    }
}

/// What refuses a client with this answer. Who sent a 403 without a sign cannot be told: many a firewall has a body of its
/// own, and so has many a service.
fn refused_by(status: u16, headers: &Headers, body: &str) -> Option<&'static str> {
    let cloudfront =
        || body.contains("Request blocked") || body.contains("Generated by cloudfront");
    match status {
        _ if headers.get(WAF_ACTION).is_some() => Some("AWS WAF, which asks for a proof"),
        403 if cloudfront() => Some("CloudFront or its firewall"),
        403 if headers.get(ERROR_TYPE).is_some() => Some("API Gateway or its firewall"),
        403 => Some("a firewall or the service itself"),
        429 => Some("a limit on requests"),
        _ => None,
    }
}

/// What kept a request from being answered, with the step that failed where it can be told.
fn failure(error: &(dyn Error + 'static)) -> String {
    let mut told: Vec<String> = Vec::new();
    let mut step = None;
    let mut next = Some(error);
    while let Some(error) = next {
        step = step.or_else(|| step_of(error));
        let words = error.to_string();
        if told.last().is_none_or(|last| !last.contains(&words)) {
            told.push(words);
        }
        next = beneath(error);
    }
    let told = told.join(": ");
    match step {
        Some(step) => format!("{step} ({told})"),
        None => told,
    }
}

/// What an error came from. The source of an I/O error is that of the error in it, which would be passed over.
fn beneath<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    let inside = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    inside.map_or_else(|| error.source(), |inside| Some(inside))
}

fn step_of(error: &(dyn Error + 'static)) -> Option<&'static str> {
    if error.is::<ResolveDnsError>() {
        return Some("its name cannot be resolved");
    }
    match error.downcast_ref::<io::Error>()?.kind() {
        io::ErrorKind::ConnectionRefused => Some("it refuses the connection"),
        // So the connector wraps what TLS says.
        io::ErrorKind::InvalidData => Some("TLS fails"),
        _ => None,
    }
}

fn incident(body: &str) -> Option<String> {
    let (_, rest) = body.split_once(MARKER)?;
    let (incident, _) = rest.split_once('"')?;
    Some(incident.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_known_by_its_status_and_its_marker() {
        let page = r#"<html><meta name="forgeguard-incident" content="inc-1">"#;
        assert_eq!(incident(page).as_deref(), Some("inc-1"));
        assert_eq!(incident("<html>503 Service Unavailable"), None);
        let seen = |status, incident: Option<&str>| Seen {
            status,
            incident: incident.map(str::to_owned),
            refused_by: None,
        };
        assert!(seen(503, Some("inc-1")).is_page_of("inc-1"));
        assert!(!seen(200, Some("inc-1")).is_page_of("inc-1"));
        assert!(!seen(503, Some("inc-0")).is_page_of("inc-1"));
        assert!(!seen(503, None).is_page_of("inc-1"));
    }

    #[test]
    fn a_refusal_is_told_from_a_page_that_is_not_up() {
        let edge = "<H2>The request could not be satisfied.</H2> Request blocked.";
        let none = [].as_slice();
        let kind = [(ERROR_TYPE, "ForbiddenException")].as_slice();
        let challenge = [(WAF_ACTION, "challenge")].as_slice();
        let cases = [
            (403, none, edge, Some("CloudFront or its firewall")),
            (
                403,
                kind,
                r#"{"message":"Forbidden"}"#,
                Some("API Gateway or its firewall"),
            ),
            (
                403,
                none,
                "of its own",
                Some("a firewall or the service itself"),
            ),
            (405, challenge, "", Some("asks for a proof")),
            (202, challenge, "", Some("asks for a proof")),
            (429, none, "", Some("a limit on requests")),
            (200, none, "Request blocked", None),
            (401, none, "", None),
            (502, none, "", None),
            (503, kind, "", None),
        ];
        for (status, given, body, by) in cases {
            let mut headers = Headers::new();
            for (name, value) in given {
                headers.insert(*name, *value);
            }
            let seen = Seen {
                status,
                incident: None,
                refused_by: refused_by(status, &headers, body),
            };
            let page = seen.instead_of_the_page("https://a/");
            let service = seen.of_the_service("https://a/");
            assert!(
                page.contains(by.unwrap_or("does not show the page yet")),
                "{page}"
            );
            for told in [page, service] {
                assert!(told.contains("https://a/ answers"), "{told}");
                assert!(told.contains(&status.to_string()), "{told}");
                assert_eq!(
                    told.contains("cannot be seen from here"),
                    by.is_some(),
                    "{told}"
                );
            }
        }
    }

    async fn why(url: &str) -> String {
        Probe::default().fetch(url).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn the_step_that_failed_is_named() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = nobody.local_addr().unwrap().port();
        drop(nobody);
        let refused = why(&format!("http://127.0.0.1:{port}/")).await;
        assert!(refused.contains("it refuses the connection"), "{refused}");
        // No label has more than 63 characters, so that nobody has to be asked.
        let unknown = why(&format!("http://{}.invalid/", "a".repeat(64))).await;
        assert!(unknown.contains("its name cannot be resolved"), "{unknown}");
        let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = plain.local_addr().unwrap().port();
        let answers = tokio::spawn(async move {
            let (mut stream, _) = plain.accept().await.unwrap();
            let answer = b"HTTP/1.1 400 Bad Request\r\n\r\n";
            tokio::io::AsyncWriteExt::write_all(&mut stream, answer)
                .await
                .unwrap();
            // It stays open until the client has given up.
            let mut rest = Vec::new();
            drop(tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await);
        });
        let tls = why(&format!("https://127.0.0.1:{port}/")).await;
        assert!(tls.contains("TLS fails"), "{tls}");
        answers.await.unwrap();
    }
}
