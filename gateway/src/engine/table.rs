//! A route configuration ready for use.

use std::sync::Arc;

use super::host_match::HostTable;
use super::matcher::RequestView;
use super::path::split_query;
use super::route::{Route, VirtualHost, split_port};

/// All routes of one route configuration. Immutable; a change makes a new one.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// Name from the configuration.
    pub name: String,
    /// Virtual hosts by domain.
    pub hosts: HostTable<VirtualHost>,
    /// Match domains without the port of the request's authority.
    pub ignore_port: bool,
}

/// Where a request goes.
#[derive(Debug, Clone)]
pub enum Found {
    /// This route of this virtual host.
    Route(Arc<VirtualHost>, Arc<Route>),
    /// The virtual host wants HTTPS.
    NeedsTls,
    /// Nowhere.
    Nothing,
}

impl RouteTable {
    /// Finds the first route that matches.
    pub fn find(&self, request: &RequestView<'_>) -> Found {
        let host =
            if self.ignore_port { split_port(request.authority).0 } else { request.authority };
        let Some(virtual_host) = self.hosts.find(host) else { return Found::Nothing };
        if virtual_host.require_tls && request.scheme != "https" {
            return Found::NeedsTls;
        }
        let (path, query) = split_query(request.path);
        let route = virtual_host.routes.iter().find(|route| route.matches(request, path, query));
        route.map_or(Found::Nothing, |route| Found::Route(virtual_host.clone(), route.clone()))
    }
}
