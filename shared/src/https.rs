//! The one HTTPS client of a function, which all its SDK clients share, and whom it trusts.
//!
//! A function's SDK clients speak to AWS and to nobody else, so that where AWS has its certificates from Amazon Trust Services,
//! it trusts their five roots, all of which Amazon Trust Services recommends for a trust store of one's own
//! (<https://www.amazontrust.com/repository/>). Left to itself, each SDK client decodes every certificate of the
//! machine instead, some of them three times, which takes longer than all else that a cold start does.
//!
//! The machine's certificates serve wherever another authority may have issued AWS's: in partitions other than
//! `aws`, behind an `https` endpoint of one's own, and when `SSL_CERT_FILE` or `SSL_CERT_DIR` names others.

use std::net::{IpAddr, Ipv4Addr};

use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector, HttpClientError};
use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use crate::courtesy::courteous;

const AMAZON_TRUST_SERVICES: &[u8] = include_bytes!("amazon-trust-services.pem");
const SSL_CERT_FILE: &str = "SSL_CERT_FILE";
const SSL_CERT_DIR: &str = "SSL_CERT_DIR";
/// What the names of the variables start with that give an endpoint, for all services or for one.
const ENDPOINT_URL: &str = "AWS_ENDPOINT_URL";
const REGION: &str = "AWS_REGION";

/// The client, for one `SdkConfig`. It keeps its calls below the account's quotas: one that has waited for its turn too
/// long fails as throttled, and was not sent.
pub fn client() -> Result<SharedHttpClient, HttpClientError> {
    let client = Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(trust_of_aws()?)
        .build_with_resolver(Resolver);
    Ok(courteous(client))
}

/// A connector to AWS, which trusts as the client does.
pub fn connector_to_aws() -> Result<Connector, HttpClientError> {
    Ok(connector_with(trust_of_aws()?))
}

fn trust_of_aws() -> Result<TlsContext, HttpClientError> {
    #[allow(clippy::disallowed_methods)]
    // They belong to the SDK and to the machine, not to the settings.
    let environment: Vec<(String, String)> = std::env::vars().collect();
    let trusted = if amazon_suffices(&environment) {
        TrustStore::empty().with_pem_certificate(AMAZON_TRUST_SERVICES)
    } else {
        TrustStore::default()
    };
    TlsContext::builder().with_trust_store(trusted).build()
}

/// A connector to servers of anyone's, which trusts the machine's certificates. It decodes each of them: make it when
/// it is needed, and once.
pub fn connector() -> Result<Connector, HttpClientError> {
    Ok(connector_with(TlsContext::builder().build()?))
}

fn connector_with(context: TlsContext) -> Connector {
    Connector::builder()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(context)
        .build_with_resolver(Resolver)
}

/// The machine's resolver, and the names below `localhost`, which are the machine itself (RFC 6761, section 6.3)
/// although not every C library says so. The SDK makes such names where a local endpoint serves accounts by name.
#[derive(Debug, Clone, Copy)]
struct Resolver;

impl ResolveDns for Resolver {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(async move {
            if name.ends_with(".localhost") {
                return Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]);
            }
            let found = tokio::net::lookup_host((name, 0)).await;
            let found = found.map_err(ResolveDnsError::new)?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// Whether every endpoint that the environment leads to has a certificate from Amazon Trust Services.
fn amazon_suffices(environment: &[(String, String)]) -> bool {
    let others_trusted = environment
        .iter()
        .any(|(name, _)| name == SSL_CERT_FILE || name == SSL_CERT_DIR);
    let own_endpoint = environment
        .iter()
        .any(|(name, url)| name.starts_with(ENDPOINT_URL) && url.starts_with("https:"));
    let in_aws_partition = environment
        .iter()
        .find(|(name, _)| name == REGION)
        .is_some_and(|(_, region)| {
            let apart = ["cn-", "eusc-", "us-gov-"];
            !apart.iter().any(|start| region.starts_with(start)) && !region.contains("-iso")
        });
    in_aws_partition && !own_endpoint && !others_trusted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amazons_roots_serve_where_nobody_else_may_have_issued_the_certificates() {
        let cases: [(&[(&str, &str)], bool); 9] = [
            (&[("AWS_REGION", "eu-west-1")], true),
            (&[("AWS_REGION", "us-east-1"), ("HOME", "/")], true),
            // Without TLS, trust does not matter.
            (
                &[
                    ("AWS_REGION", "us-east-1"),
                    ("AWS_ENDPOINT_URL", "http://127.0.0.1:4566"),
                ],
                true,
            ),
            (
                &[
                    ("AWS_REGION", "us-east-1"),
                    ("AWS_ENDPOINT_URL_SQS", "https://sqs.corp.example"),
                ],
                false,
            ),
            (&[("AWS_REGION", "cn-north-1")], false),
            (&[("AWS_REGION", "us-gov-west-1")], false),
            (&[("AWS_REGION", "us-iso-east-1")], false),
            (
                &[("AWS_REGION", "us-east-1"), ("SSL_CERT_FILE", "/corp.pem")],
                false,
            ),
            (&[], false),
        ];
        for (environment, expected) in cases {
            let owned: Vec<_> = environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            assert_eq!(amazon_suffices(&owned), expected, "{environment:?}");
        }
    }

    #[tokio::test]
    async fn names_below_localhost_are_the_machine() {
        let found = Resolver.resolve_dns("123456789012.localhost").await;
        assert_eq!(found.unwrap(), [Ipv4Addr::LOCALHOST]);
        let found = Resolver.resolve_dns("127.0.0.1").await;
        assert_eq!(found.unwrap(), [Ipv4Addr::LOCALHOST]);
    }

    #[test]
    fn the_file_holds_the_five_roots() {
        let pem = std::str::from_utf8(AMAZON_TRUST_SERVICES).unwrap();
        assert_eq!(pem.matches("-----BEGIN CERTIFICATE-----").count(), 5);
        client().unwrap();
    }
}
