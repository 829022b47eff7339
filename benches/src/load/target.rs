//! A target of load: `NAME=PROTOCOL@HOST:PORT/MODEL`, parsed and connected.

use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Result, bail};

use super::Adapter;
use super::http::Client;
use super::kserve_grpc::KserveGrpc;
use super::penstock_stream::PenstockStream;
use super::tei_http::TeiHttp;
use super::v2_http::V2Http;

/// A protocol, by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `ModelInfer`: Penstock and Triton.
    KserveGrpc,
    /// `penstock.v1.TextService/Score`.
    PenstockStream,
    /// `POST /embed`: text-embeddings-inference and Penstock.
    TeiHttp,
    /// `POST /v2/models/MODEL/infer`: Penstock and Triton.
    V2Http,
}

impl Protocol {
    const ALL: [Protocol; 4] = [
        Protocol::KserveGrpc,
        Protocol::PenstockStream,
        Protocol::TeiHttp,
        Protocol::V2Http,
    ];

    fn name(self) -> &'static str {
        match self {
            Protocol::KserveGrpc => "kserve-grpc",
            Protocol::PenstockStream => "penstock-stream",
            Protocol::TeiHttp => "tei-http",
            Protocol::V2Http => "v2-http",
        }
    }
}

/// A server, its protocol and its model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The name in the results.
    pub name: String,
    /// Protocol that it speaks.
    pub protocol: Protocol,
    /// Host and port.
    pub address: String,
    /// The model; TEI serves one and needs none.
    pub model: String,
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(spec: &str) -> Result<Target> {
        let parts = spec.split_once('=').and_then(|(name, rest)| {
            let (protocol, place) = rest.split_once('@')?;
            let (address, model) = place.split_once('/').unwrap_or((place, ""));
            Some((name, protocol, address, model))
        });
        let Some((name, protocol, address, model)) = parts else {
            bail!("target {spec} is not NAME=PROTOCOL@HOST:PORT/MODEL");
        };
        let Some(known) = Protocol::ALL.into_iter().find(|p| p.name() == protocol) else {
            let known = Protocol::ALL.map(Protocol::name).join(", ");
            bail!("target {name} has the protocol {protocol}, known are {known}");
        };
        if model.is_empty() && known != Protocol::TeiHttp {
            bail!("target {name} names no model; write {protocol}@{address}/MODEL");
        }
        Ok(Target {
            name: name.to_owned(),
            protocol: known,
            address: address.to_owned(),
            model: model.to_owned(),
        })
    }
}

impl Target {
    /// Opens `connections` connections; HTTP/1.1 opens one for each request that is on its way.
    pub async fn connect(&self, connections: usize) -> Result<Arc<dyn Adapter>> {
        Ok(match self.protocol {
            Protocol::KserveGrpc => {
                Arc::new(KserveGrpc::connect(&self.address, &self.model, connections).await?)
            }
            Protocol::PenstockStream => {
                Arc::new(PenstockStream::connect(&self.address, &self.model, connections).await?)
            }
            Protocol::TeiHttp => Arc::new(TeiHttp::new(Client::new(&self.address))),
            Protocol::V2Http => Arc::new(V2Http::new(Client::new(&self.address), &self.model)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: &str, expected: &str) {
        let got = match spec.parse::<Target>() {
            Ok(t) => format!("{} {} {} {}", t.name, t.protocol.name(), t.address, t.model),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expected);
    }

    #[test]
    fn specs() {
        check(
            "a=kserve-grpc@127.0.0.1:8001/minilm",
            "a kserve-grpc 127.0.0.1:8001 minilm",
        );
        check("tei=tei-http@127.0.0.1:80", "tei tei-http 127.0.0.1:80 ");
        check(
            "127.0.0.1",
            "target 127.0.0.1 is not NAME=PROTOCOL@HOST:PORT/MODEL",
        );
        check(
            "a=grpc@h:1/m",
            "target a has the protocol grpc, known are kserve-grpc, penstock-stream, tei-http, v2-http",
        );
        check(
            "a=v2-http@h:1",
            "target a names no model; write v2-http@h:1/MODEL",
        );
    }
}
