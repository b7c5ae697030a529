//! The server: what every request goes through before a verb sees it.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use flotilla_server::{PeerInfo, Readiness, Shutdown};
use http::header::ACCEPT_ENCODING;
use http::{Method, Response};
use parking_lot::Mutex;

use crate::addresses::Addresses;
use crate::error::ApiError;
use crate::identity::{Attributes, Authenticator, Authorizer, ServiceTokens, User};
use crate::metrics::Metrics;
use crate::output::{self, Output};
use crate::request::{Query, Route, route, verb};
use crate::rest::Call;
use crate::store::{Cache, Etcd};
use crate::subresources::KubeletClient;
use crate::{Config, body, pages};

/// Everything requests share.
#[derive(Debug)]
pub struct Api {
    /// Flags.
    pub config: Config,
    /// The store.
    pub etcd: Etcd,
    /// What the store holds.
    pub cache: Arc<Cache>,
    /// Prefix of every key, with a slash at the end.
    pub prefix: String,
    /// Whether the cache follows the store.
    pub readiness: Readiness,
    /// Service addresses and ports.
    pub addresses: Addresses,
    /// Who asks.
    pub authenticator: Authenticator,
    /// Who may.
    pub authorizer: Authorizer,
    /// Service account tokens.
    pub tokens: Arc<ServiceTokens>,
    /// Counters.
    pub metrics: Metrics,
    /// Calls to kubelets.
    pub kubelets: KubeletClient,
    /// The end of the process.
    pub shutdown: Shutdown,
    pub(crate) event_lease: Mutex<Option<(i64, Instant)>>,
}

/// The routes of the API.
pub fn router(api: Arc<Api>) -> Router {
    Router::new().fallback(handle).with_state(api)
}

async fn handle(State(api): State<Arc<Api>>, request: Request) -> Response<Body> {
    let started = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let route = route(&path);
    let labels = pages::RequestLabels::of(&method, &route, &query);
    let encodings = request.headers().get(ACCEPT_ENCODING).and_then(|v| v.to_str().ok());
    let accepts = encodings.is_some_and(|e| e.contains("gzip"));
    let response = output::gzip(accepts, api.answer(request, route, query).await).await;
    api.metrics.observe(&labels, response.status().as_u16(), started.elapsed());
    response
}

impl Api {
    async fn answer(&self, request: Request, route: Route, query: Query) -> Response<Body> {
        let output = Output::negotiate(request.headers(), query.flag("pretty"));
        let for_errors = output.clone().unwrap_or(Output::JSON);
        match self.dispatch(request, route, query, output).await {
            Ok(response) => response,
            Err(error) => {
                if error.code >= 500 {
                    tracing::warn!(code = error.code, message = error.message, "request failed");
                }
                error.respond(for_errors)
            }
        }
    }

    async fn dispatch(
        &self,
        request: Request,
        route: Route,
        query: Query,
        output: Result<Output, ApiError>,
    ) -> Result<Response<Body>, ApiError> {
        let peer = request.extensions().get::<PeerInfo>();
        let caller =
            self.authenticator.user(peer, request.headers()).ok_or_else(ApiError::unauthorized)?;
        let user = self.acting_user(caller, request.headers())?;
        let method = request.method().clone();
        match route {
            Route::Resource(target) => {
                let verb =
                    verb(&method, &target, &query).ok_or_else(ApiError::method_not_allowed)?;
                let attributes = Attributes {
                    verb,
                    group: target.resource.group,
                    resource: target.resource.plural,
                    subresource: target.sub(),
                    namespace: &target.namespace,
                    name: &target.name,
                    path: "",
                };
                self.authorize(&user, &attributes)?;
                let proxied =
                    matches!(target.sub(), "exec" | "attach" | "portforward" | "proxy" | "log");
                if proxied {
                    return self.proxy(&target, &query, request).await;
                }
                let output = output?;
                let (parts, body) = request.into_parts();
                let body = body::read(&parts.headers, body).await?;
                let call =
                    Call { target: *target, query, user, output, headers: parts.headers, body };
                self.serve(verb, call).await
            }
            Route::Unknown => Err(ApiError::no_such_path()),
            other => {
                let path = request.uri().path().to_owned();
                let verb = method.as_str().to_ascii_lowercase();
                self.authorize(
                    &user,
                    &Attributes { verb: &verb, path: &path, ..Attributes::default() },
                )?;
                if method != Method::GET && method != Method::HEAD {
                    return Err(ApiError::method_not_allowed());
                }
                self.page(&other, &path, &query, request.headers(), output.unwrap_or(Output::JSON))
            }
        }
    }

    /// 403 unless the user may.
    pub(crate) fn authorize(&self, user: &User, wants: &Attributes<'_>) -> Result<(), ApiError> {
        if self.authorizer.allows(user, wants) {
            return Ok(());
        }
        if wants.resource.is_empty() {
            return Err(ApiError::forbidden_path(format!(
                "forbidden: User {:?} cannot {} path {:?}",
                user.name, wants.verb, wants.path
            )));
        }
        let resource = if wants.subresource.is_empty() {
            wants.resource.to_owned()
        } else {
            format!("{}/{}", wants.resource, wants.subresource)
        };
        let scope = if wants.namespace.is_empty() || wants.resource == "namespaces" {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {:?}", wants.namespace)
        };
        let why = format!(
            "User {:?} cannot {} resource {resource:?} in API group {:?} {scope}",
            user.name, wants.verb, wants.group
        );
        Err(ApiError::forbidden(wants.group, wants.resource, wants.name, why))
    }

    fn page(
        &self,
        route: &Route,
        path: &str,
        query: &Query,
        headers: &http::HeaderMap,
        output: Output,
    ) -> Result<Response<Body>, ApiError> {
        match route {
            Route::CoreVersions | Route::Groups | Route::Group(_) | Route::GroupVersion(..) => {
                pages::discovery(route, headers, output)
            }
            _ => self.other_page(path, query, headers, output),
        }
    }

    fn other_page(
        &self,
        path: &str,
        query: &Query,
        headers: &http::HeaderMap,
        output: Output,
    ) -> Result<Response<Body>, ApiError> {
        match path {
            "/" => Ok(output.respond(200, &pages::paths())),
            "/version" | "/version/" => Ok(output.respond(200, &pages::version())),
            "/metrics" => Ok(output::respond(
                200,
                flotilla_telemetry::TEXT_FORMAT,
                self.metrics.text(&self.cache),
            )),
            "/openid/v1/jwks" | "/.well-known/openid-configuration" => {
                Err(ApiError::not_supported_yet(path))
            }
            "/openapi/v2" => pages::openapi_v2(headers),
            _ if path.starts_with("/openapi/v3") => pages::openapi_v3(path),
            _ => match pages::health(path, query, self.readiness.is_ready()) {
                Some(response) => Ok(response),
                None => Ok(output::text(404, "404 page not found\n")),
            },
        }
    }

    /// The lease of events written in these minutes.
    pub(crate) async fn event_lease(&self) -> Result<i64, ApiError> {
        const SHARED: std::time::Duration = std::time::Duration::from_secs(60);
        if let Some((lease, _)) =
            self.event_lease.lock().filter(|(_, since)| since.elapsed() < SHARED)
        {
            return Ok(lease);
        }
        let seconds = self.config.event_ttl.as_secs().max(1) + SHARED.as_secs();
        let lease = self.etcd.grant(i64::try_from(seconds).unwrap_or(i64::MAX)).await?;
        *self.event_lease.lock() = Some((lease, Instant::now()));
        Ok(lease)
    }
}
