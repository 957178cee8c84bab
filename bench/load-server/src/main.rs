//! The load server on a port of this machine.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use clap::Parser;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use load_server::{Answer, Asked, Server};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};

/// Serves the AWS calls of the remediations from memory, on the loopback interface only.
#[derive(Debug, Parser)]
struct Args {
    /// Port to listen on; 0 takes a free one, which is printed.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

/// Why the server cannot serve.
#[derive(Debug, Error)]
enum ServeError {
    #[error("listening on 127.0.0.1:{port}")]
    Listen {
        port: u16,
        #[source]
        source: std::io::Error,
    },
    #[error("reading the address that was bound")]
    Address(#[source] std::io::Error),
}

#[tokio::main]
async fn main() -> Result<(), ServeError> {
    let args = Args::parse();
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, args.port)))
        .await
        .map_err(|source| ServeError::Listen {
            port: args.port,
            source,
        })?;
    println!("{}", listener.local_addr().map_err(ServeError::Address)?);
    let server = Arc::new(Server::default());
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(stream, Arc::clone(&server)));
            }
            // The client gave up before it was accepted; others still come.
            Err(error) => eprintln!("accepting a connection: {error}"),
        }
    }
}

async fn serve(stream: TcpStream, server: Arc<Server>) {
    if let Err(error) = stream.set_nodelay(true) {
        eprintln!("setting TCP_NODELAY: {error}");
    }
    let service = service_fn(move |request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(respond(&server, request).await) }
    });
    if let Err(error) = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await
        // A client that is killed while it waits for an answer is part of the bench.
        && !error.is_incomplete_message()
    {
        eprintln!("serving a connection: {error}");
    }
}

async fn respond(server: &Server, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            eprintln!("reading a request's body: {error}");
            return to_response(Answer::unknown());
        }
    };
    let target = head
        .headers
        .get("x-amz-target")
        .and_then(|target| target.to_str().ok());
    let asked = Asked {
        method: head.method.as_str(),
        path: head.uri.path(),
        query: head.uri.query().unwrap_or_default(),
        body: &body,
    };
    to_response(server.answer(asked, target).await)
}

fn to_response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(answer.body));
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    for (name, value) in &answer.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse()) {
            headers.insert(name, value);
        }
    }
    if answer.content_type == "application/cbor" {
        headers.insert("smithy-protocol", HeaderValue::from_static("rpc-v2-cbor"));
    }
    response
}
