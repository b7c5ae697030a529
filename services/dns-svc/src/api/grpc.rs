//! The own gRPC API, flotilla.dns.v1.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use flotilla_proto::dns::flotilla::dns::v1 as pb;
use tonic::{Request, Response, Status};

use super::Running;
use crate::engine::Client;
use crate::plan;
use crate::wire::types::{A, RD, rcode_text};
use crate::wire::{Name, Query, scan};

const MAX_MESSAGE: usize = 65_535;

/// Implements the three services over the running plan.
#[derive(Debug, Clone)]
pub struct AdminService {
    running: Arc<Running>,
}

impl AdminService {
    /// Over what runs; the first port's sites resolve.
    pub fn new(running: Arc<Running>) -> Self {
        Self { running }
    }
}

#[tonic::async_trait]
impl pb::cache_service_server::CacheService for AdminService {
    async fn flush(
        &self,
        request: Request<pb::FlushRequest>,
    ) -> Result<Response<pb::FlushResponse>, Status> {
        let suffix = request.into_inner().suffix;
        let suffix = match suffix.as_str() {
            "" => None,
            text => Some(Name::parse(text).map_err(Status::invalid_argument)?.to_lowercase()),
        };
        let mut flushed = 0;
        for port in &self.running.state().ports {
            let sites = port.load();
            flushed += sites
                .list()
                .iter()
                .filter_map(|site| site.cache.as_ref())
                .map(|c| c.flush(suffix.as_ref()))
                .sum::<u64>();
        }
        Ok(Response::new(pb::FlushResponse { flushed }))
    }

    async fn stats(
        &self,
        _: Request<pb::StatsRequest>,
    ) -> Result<Response<pb::StatsResponse>, Status> {
        let mut total = pb::StatsResponse::default();
        for port in &self.running.state().ports {
            for stats in port
                .load()
                .list()
                .iter()
                .filter_map(|site| site.cache.as_ref())
                .map(crate::engine::Cache::stats)
            {
                total.entries += stats.entries;
                total.hits += stats.hits;
                total.misses += stats.misses;
            }
        }
        Ok(Response::new(total))
    }
}

#[tonic::async_trait]
impl pb::config_service_server::ConfigService for AdminService {
    async fn get_corefile(
        &self,
        _: Request<pb::GetCorefileRequest>,
    ) -> Result<Response<pb::GetCorefileResponse>, Status> {
        Ok(Response::new(pb::GetCorefileResponse {
            corefile: self.running.state().corefile.clone(),
        }))
    }

    async fn validate(
        &self,
        request: Request<pb::ValidateRequest>,
    ) -> Result<Response<pb::ValidateResponse>, Status> {
        let error = match plan::Plan::parse(
            "Corefile",
            &request.into_inner().corefile,
            std::path::Path::new("."),
            53,
        ) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        Ok(Response::new(pb::ValidateResponse { error }))
    }

    async fn list_plugins(
        &self,
        _: Request<pb::ListPluginsRequest>,
    ) -> Result<Response<pb::ListPluginsResponse>, Status> {
        let plugins = plan::PLUGINS.iter().map(|name| (*name).to_owned()).collect();
        Ok(Response::new(pb::ListPluginsResponse { plugins }))
    }
}

#[tonic::async_trait]
impl pb::resolve_service_server::ResolveService for AdminService {
    async fn resolve(
        &self,
        request: Request<pb::ResolveRequest>,
    ) -> Result<Response<pb::ResolveResponse>, Status> {
        let request = request.into_inner();
        let original = Name::parse(&request.name).map_err(Status::invalid_argument)?;
        let qtype = match request.r#type {
            0 => A,
            number => {
                u16::try_from(number).map_err(|_| Status::invalid_argument("type exceeds 65535"))?
            }
        };
        let query = Query {
            id: 0,
            flags: RD,
            name: original.to_lowercase(),
            original,
            qtype,
            class: 1,
            edns: None,
            size: 0,
        };
        let client =
            Client { remote: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), tcp: true, hops: 0 };
        let state = self.running.state();
        let Some(port) = state.ports.first() else {
            return Err(Status::unavailable("no server block"));
        };
        let sites = port.load_full();
        let message = sites.answer(&query, &client, MAX_MESSAGE).await;
        let walked = scan(&message).ok_or_else(|| Status::internal("own answer cannot be read"))?;
        Ok(Response::new(pb::ResolveResponse {
            rcode: rcode_text(walked.rcode()).to_owned(),
            answers: walked.answers() as u32,
            message: message.into(),
        }))
    }
}
