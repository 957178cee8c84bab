//! One HTTP request on a connection of its own: no pool keeps a socket to a process that is gone.

use std::net::SocketAddr;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::error::BenchError;

/// Sends a request and returns the body of a 200 answer.
pub(super) async fn request(
    address: SocketAddr,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<Bytes, BenchError> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|source| BenchError::Connect { address, source })?;
    request_on(stream, address, method, path, body).await
}

/// The same on a connection that is already open.
pub(super) async fn request_on(
    stream: TcpStream,
    address: SocketAddr,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<Bytes, BenchError> {
    let failed = |source| BenchError::Request {
        address,
        path: path.to_owned(),
        source,
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    // It ends with the answer; what goes wrong on it fails the request as well.
    let connection = tokio::spawn(connection);
    let mut request = Request::new(Full::<Bytes>::from(body));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap_or_default();
    if let Ok(host) = address.to_string().parse() {
        request.headers_mut().insert(HOST, host);
    }
    let response = sender.send_request(request).await.map_err(failed)?;
    let status = response.status();
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(failed)?
        .to_bytes();
    connection.abort();
    if !status.is_success() {
        return Err(BenchError::Status {
            address,
            path: path.to_owned(),
            status: status.as_u16(),
            body: String::from_utf8_lossy(&body).into_owned(),
        });
    }
    Ok(body)
}
