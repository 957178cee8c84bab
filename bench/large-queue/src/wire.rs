//! The SDK's wire, without a network: each request is answered by the load server in this process.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use load_server::{Asked, Server};
use serde_json::Value;

/// How long a request takes there and back.
const ROUND_TRIP: Duration = Duration::from_millis(10);
/// Where the function invokes itself.
const INVOCATIONS: &str = "/invocations";

/// The wire.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wire {
    pub(crate) server: Arc<Server>,
    continuations: Arc<Mutex<Vec<Value>>>,
}

impl Wire {
    /// What the function has invoked itself with since this was last asked.
    pub(crate) fn continuations(&self) -> Vec<Value> {
        let mut held = self
            .continuations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut held)
    }

    /// Asks the server itself.
    pub(crate) async fn control(&self, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
        let asked = Asked {
            method,
            path,
            query: "",
            body,
        };
        self.server.answer(asked, None).await.body
    }

    async fn answer(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        tokio::time::sleep(ROUND_TRIP).await;
        let other = |problem: &str| ConnectorError::other(problem.to_owned().into(), None);
        let uri = request.uri();
        let (_, path) = uri
            .split_once("://")
            .and_then(|(_, rest)| rest.split_once('/'))
            .unwrap_or(("", ""));
        let path = format!("/{path}");
        let body = request
            .body()
            .bytes()
            .ok_or_else(|| other("the body is a stream"))?;
        if path.ends_with(INVOCATIONS) {
            let payload = serde_json::from_slice(body).map_err(|_| other("no JSON was sent"))?;
            self.continuations
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(payload);
        }
        let asked = Asked {
            method: request.method(),
            path: &path,
            query: "",
            body,
        };
        let target = request.headers().get("x-amz-target");
        let answer = self.server.answer(asked, target).await;
        let status = answer.status.try_into().map_err(|_| other("no status"))?;
        let mut response = HttpResponse::new(status, SdkBody::from(answer.body));
        response
            .headers_mut()
            .insert("content-type", answer.content_type);
        Ok(response)
    }
}

impl HttpConnector for Wire {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.clone().answer(request))
    }
}

impl HttpClient for Wire {
    fn http_connector(
        &self,
        _settings: &HttpConnectorSettings,
        _components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}
