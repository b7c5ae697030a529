//! Serves Services and Ingresses to Envoy-compatible proxies over xDS.
