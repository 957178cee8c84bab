//! Fetches the service's URL as a client does, and tells whether the page is there.

use std::time::Duration;

use aws_smithy_http_client::Connector;
use aws_smithy_runtime_api::client::http::HttpConnector as _;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
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
/// How much of an answer is read.
const ENOUGH: usize = 256 * 1024;

/// What a client sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The status.
    pub status: u16,
    /// The incident that the page names, where the answer is the page.
    pub incident: Option<String>,
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
        let answer = answer.map_err(|error| format!("{error:?}"))?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ENOUGH).collect().await;
        // An answer that is too long for the page is not the page.
        let body = body
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        Ok(Seen {
            status,
            incident: incident(&String::from_utf8_lossy(&body)),
        })
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
        };
        assert!(seen(503, Some("inc-1")).is_page_of("inc-1"));
        assert!(!seen(200, Some("inc-1")).is_page_of("inc-1"));
        assert!(!seen(503, Some("inc-0")).is_page_of("inc-1"));
        assert!(!seen(503, None).is_page_of("inc-1"));
    }
}
