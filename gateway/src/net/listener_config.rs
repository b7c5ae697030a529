//! Listeners of the API to those in use.

use std::sync::Arc;

use tokio_rustls::TlsAcceptor;

use super::address::Address;
use super::hcm::Hcm;
use super::hcm_config;
use super::tcp::TcpProxy;
use super::tls;
use crate::bootstrap::{ConfigError, pb, unpack};
use crate::state::State;

const HCM: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const TCP: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";

/// What is done with accepted connections.
#[derive(Clone)]
pub struct ListenerConfig {
    /// Name, unique among listeners.
    pub name: String,
    /// Where to listen.
    pub address: Address,
    /// TLS, if any.
    pub tls: Option<TlsAcceptor>,
    /// What speaks on the connections.
    pub filter: Filter,
    /// The route configuration it waits for before it serves.
    pub waits_for: Option<String>,
}

impl std::fmt::Debug for ListenerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListenerConfig")
            .field("name", &self.name)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// The terminal network filter.
#[derive(Debug, Clone)]
pub enum Filter {
    /// HTTP.
    Http(Arc<Hcm>),
    /// Bytes.
    Tcp(Arc<TcpProxy>),
}

impl ListenerConfig {
    /// Reads the API's form.
    ///
    /// # Errors
    /// Names what is not implemented or cannot work.
    pub fn read(state: &Arc<State>, config: &pb::listener::Listener) -> Result<Self, ConfigError> {
        read(state, config).map_err(|error| error.within(&format!("listeners[{}]", config.name)))
    }
}

fn read(
    state: &Arc<State>,
    config: &pb::listener::Listener,
) -> Result<ListenerConfig, ConfigError> {
    let address = Address::read(config.address.as_ref(), "address", false)?;
    let [chain] = config.filter_chains.as_slice() else {
        return Err(match config.filter_chains.len() {
            0 => ConfigError::invalid("filter_chains", "no filter chains specified"),
            _ => ConfigError::unsupported("filter_chains: more than one"),
        });
    };
    let [filter] = chain.filters.as_slice() else {
        return Err(match chain.filters.len() {
            0 => ConfigError::invalid("filter_chains[0].filters", "a terminal filter is needed"),
            _ => ConfigError::unsupported("filter_chains[0].filters: more than one"),
        });
    };
    let path = "filter_chains[0].filters[0].typed_config";
    let Some(pb::listener::filter::ConfigType::TypedConfig(any)) = &filter.config_type else {
        return Err(ConfigError::invalid(path, "it is missing"));
    };
    let (filter, waits_for) = if any.type_url.ends_with(HCM) {
        let (hcm, waits_for) = hcm_config::read(state, &unpack(any, HCM, path)?)?;
        (Filter::Http(hcm), waits_for)
    } else {
        (Filter::Tcp(Arc::new(TcpProxy::read(state, &unpack(any, TCP, path)?)?)), None)
    };
    let tls =
        tls::downstream(chain.transport_socket.as_ref(), "filter_chains[0].transport_socket")?;
    let name = if config.name.is_empty() { address.to_string() } else { config.name.clone() };
    Ok(ListenerConfig { name, address, tls, filter, waits_for })
}
