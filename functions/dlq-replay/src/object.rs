//! Objects in S3 that messages point to, read by one signed request each: the SDK's client for S3 would add a sixth to
//! the function's archive.

use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_sqs::config::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use aws_smithy_http_client::Connector;
use aws_smithy_runtime_api::client::http::HttpConnector as _;
use aws_smithy_runtime_api::client::identity::Identity;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use chrono::{DateTime, Utc};
use http_body_util::{BodyExt as _, Limited};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use shared::aws_error::{AwsError, Kind, kind_of_code};
use shared::backoff;
use shared::https;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::envelope::Place;

/// The longest object that is read: as much as a function's event may have.
const READ_BYTES: usize = 1_048_576;
/// The longest refusal that is read.
const REFUSAL_BYTES: usize = 16_384;
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a failed look-up is tried again.
const RETRIES: u32 = 2;
const GET: &str = "s3:GetObject";
/// What stays as it is in a path (AWS General Reference, "Create a signed AWS API request").
const AS_IT_IS: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// The object that a message points to, looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// It is there, and was not read: nobody asks what it holds, or it is no text, or too long.
    There,
    /// It is there, and holds this.
    Read(String),
    /// There is none.
    Gone(Place),
    /// Whether it is there could not be told, for a moment.
    Unanswered,
}

/// What reads objects, of the function's own region.
#[derive(Debug, Clone)]
pub struct Objects {
    credentials: Option<SharedCredentialsProvider>,
    region: String,
    endpoint: Option<String>,
    connector: Arc<OnceCell<Connector>>,
}

impl Objects {
    /// Takes what it needs from a configuration.
    #[must_use]
    pub fn new(config: &SdkConfig) -> Self {
        Self {
            credentials: config.credentials_provider(),
            region: config.region().map(ToString::to_string).unwrap_or_default(),
            endpoint: config.endpoint_url().map(str::to_owned),
            connector: Arc::default(),
        }
    }

    /// Looks an object up, and reads it where it is `wanted` and a text of at most 1 MiB; tries again what fails for a
    /// moment.
    ///
    /// An object that is not there is told by `NoSuchKey` only to who may list the bucket; others are denied (Amazon S3
    /// API Reference, "`GetObject`").
    pub async fn look_up(
        &self,
        place: &Place,
        wanted: bool,
        now: DateTime<Utc>,
    ) -> Result<Object, AwsError> {
        let mut attempt = 0;
        loop {
            match self.look_up_once(place, wanted, now).await {
                Err(error) if error.is_transient() && attempt < RETRIES => {
                    tracing::debug!(%error, "looking up again");
                    tokio::time::sleep(backoff::pause(attempt + 2, &place.key)).await;
                    attempt += 1;
                }
                looked_up => return looked_up,
            }
        }
    }

    async fn look_up_once(
        &self,
        place: &Place,
        wanted: bool,
        now: DateTime<Utc>,
    ) -> Result<Object, AwsError> {
        let unanswered = |message: String| AwsError {
            operation: GET,
            subject: place.to_string(),
            kind: Kind::Unknown,
            code: None,
            message,
        };
        timeout(PATIENCE, self.get(place, wanted, now))
            .await
            .unwrap_or_else(|_| Err(format!("no answer in {} s", PATIENCE.as_secs())))
            .map_err(unanswered)?
    }

    async fn get(
        &self,
        place: &Place,
        wanted: bool,
        now: DateTime<Utc>,
    ) -> Result<Result<Object, AwsError>, String> {
        let request = self.signed(place, wanted, now).await?;
        let connector = self
            .connector
            .get_or_try_init(|| async { https::connector_to_aws() })
            .await
            .map_err(|error| error.to_string())?;
        let answer = connector.call(request).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        if (200..300).contains(&status) {
            let length = answer.headers().get("content-length");
            let length = length.and_then(|length| length.parse::<usize>().ok());
            if !wanted || length.is_none_or(|bytes| bytes > READ_BYTES) {
                return Ok(Ok(Object::There));
            }
            let body = Limited::new(answer.into_body(), READ_BYTES).collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            let text = String::from_utf8(body.to_vec());
            return Ok(Ok(text.map_or(Object::There, Object::Read)));
        }
        let refusal = Limited::new(answer.into_body(), REFUSAL_BYTES);
        let refusal = refusal.collect().await;
        let refusal = refusal
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        Ok(refused(place, status, &String::from_utf8_lossy(&refusal)))
    }

    async fn signed(
        &self,
        place: &Place,
        wanted: bool,
        now: DateTime<Utc>,
    ) -> Result<HttpRequest, String> {
        let credentials = self
            .credentials
            .as_ref()
            .ok_or("there are no credentials")?;
        let credentials = credentials.provide_credentials().await;
        let identity: Identity = credentials.map_err(|error| error.to_string())?.into();
        let mut settings = SigningSettings::default();
        // A key is encoded once, and not normalized (AWS General Reference, "Create a signed AWS API request").
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("s3")
            .time(now.into())
            .settings(settings)
            .build()
            .map_err(|error| error.to_string())?
            .into();
        let url = self.url(place);
        let range = (!wanted).then_some(("range", "bytes=0-0"));
        let signable =
            SignableRequest::new("GET", &url, range.into_iter(), SignableBody::Bytes(&[]));
        let signed = signable.and_then(|signable| sign(signable, &params));
        let (instructions, _) = signed.map_err(|error| error.to_string())?.into_parts();
        let mut request = HttpRequest::new(SdkBody::empty());
        request.set_uri(url).map_err(|error| error.to_string())?;
        let headers = request.headers_mut();
        if let Some((name, value)) = range {
            headers.insert(name, value);
        }
        for (name, value) in instructions.headers() {
            headers.insert(name.to_owned(), value.to_owned());
        }
        Ok(request)
    }

    /// The object's address. A bucket whose name has dots is none of the certificate's (Amazon S3 User Guide, "Virtual
    /// hosting of general purpose buckets").
    fn url(&self, Place { bucket, key }: &Place) -> String {
        let key = utf8_percent_encode(key, AS_IT_IS);
        let region = &self.region;
        let suffix = if region.starts_with("cn-") {
            "amazonaws.com.cn"
        } else {
            "amazonaws.com"
        };
        match &self.endpoint {
            Some(endpoint) => format!("{}/{bucket}/{key}", endpoint.trim_end_matches('/')),
            None if bucket.contains('.') => {
                format!("https://s3.{region}.{suffix}/{bucket}/{key}")
            }
            None => format!("https://{bucket}.s3.{region}.{suffix}/{key}"),
        }
    }
}

/// What a refusal means (Amazon S3 API Reference, "Error responses").
fn refused(place: &Place, status: u16, body: &str) -> Result<Object, AwsError> {
    let within = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        let (text, _) = rest.split_once(&format!("</{name}>"))?;
        Some(text.to_owned())
    };
    let code = within("Code");
    match code.as_deref() {
        Some("NoSuchKey" | "NoSuchBucket") => Ok(Object::Gone(place.clone())),
        // An empty object has no first byte.
        Some("InvalidRange") => Ok(Object::There),
        _ => Err(AwsError {
            operation: GET,
            subject: place.to_string(),
            kind: code.as_deref().map_or(Kind::Unknown, kind_of_code),
            message: within("Message").unwrap_or_else(|| format!("status {status}")),
            code,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(bucket: &str, key: &str) -> Place {
        Place {
            bucket: bucket.into(),
            key: key.into(),
        }
    }

    fn objects(region: &str, endpoint: Option<&str>) -> Objects {
        Objects {
            credentials: None,
            region: region.into(),
            endpoint: endpoint.map(str::to_owned),
            connector: Arc::default(),
        }
    }

    #[test]
    fn an_object_is_asked_for_where_it_lies() {
        let at = |region, bucket, key| objects(region, None).url(&place(bucket, key));
        assert_eq!(
            at("eu-west-1", "payloads", "a/b c+ü"),
            "https://payloads.s3.eu-west-1.amazonaws.com/a/b%20c%2B%C3%BC"
        );
        assert_eq!(
            at("cn-north-1", "pay.loads", "k"),
            "https://s3.cn-north-1.amazonaws.com.cn/pay.loads/k"
        );
        let own = objects("eu-west-1", Some("http://127.0.0.1:4566/"));
        assert_eq!(
            own.url(&place("payloads", "k")),
            "http://127.0.0.1:4566/payloads/k"
        );
    }

    #[test]
    fn a_refusal_tells_what_is_gone_from_what_cannot_be_seen() {
        let place = place("payloads", "k");
        let of = |code: &str| {
            let body = format!(
                "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message></Error>"
            );
            refused(&place, 404, &body)
        };
        for code in ["NoSuchKey", "NoSuchBucket"] {
            assert_eq!(of(code).unwrap(), Object::Gone(place.clone()));
        }
        assert_eq!(of("InvalidRange").unwrap(), Object::There);
        let denied = of("AccessDenied").unwrap_err();
        assert_eq!(denied.kind, Kind::Denied);
        let told = denied.to_string();
        assert!(
            told.contains("s3://payloads/k") && told.contains("grant s3:GetObject"),
            "{told}"
        );
        // A page of somebody's proxy says nothing of the object.
        let other = refused(&place, 404, "<html>not found</html>").unwrap_err();
        assert_eq!(
            (other.kind, other.message.as_str()),
            (Kind::Unknown, "status 404")
        );
    }
}
