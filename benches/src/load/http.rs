//! HTTP/1.1 with kept-alive connections: one for each request that is on its way at the same time.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Failure;

/// An error page is quoted up to here.
const QUOTE_BYTES: usize = 200;

/// A client of one server.
pub struct Client {
    address: String,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl Client {
    /// Connects when the first request is sent.
    pub fn new(address: &str) -> Client {
        Client {
            address: address.to_owned(),
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Posts JSON and hands back the body of an answer 200.
    pub async fn post(&self, path: &str, json: Vec<u8>) -> Result<Bytes, Failure> {
        let mut connection = self.connection().await?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, &self.address)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(json)))
            .map_err(|e| Failure::of("request", e))?;
        let response = connection
            .send_request(request)
            .await
            .map_err(|e| Failure::of(path, e))?;
        let status = response.status();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|e| Failure::of(path, e))?
            .to_bytes();
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(connection);
        if status == StatusCode::OK {
            return Ok(body);
        }
        let quote = String::from_utf8_lossy(&body[..body.len().min(QUOTE_BYTES)]).into_owned();
        Err(Failure(format!("{path}: {status}: {quote}")))
    }

    async fn connection(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut connection) = idle else { break };
            // The server may have closed it meanwhile.
            if connection.ready().await.is_ok() {
                return Ok(connection);
            }
        }
        let stream = TcpStream::connect(&self.address)
            .await
            .map_err(|e| Failure::of(&self.address, e))?;
        stream
            .set_nodelay(true)
            .map_err(|e| Failure::of(&self.address, e))?;
        let (connection, driver) = handshake(TokioIo::new(stream))
            .await
            .map_err(|e| Failure::of(&self.address, e))?;
        tokio::spawn(driver);
        Ok(connection)
    }
}
