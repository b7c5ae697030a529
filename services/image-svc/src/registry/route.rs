//! Paths of the registry.

use crate::engine::reference::valid_name;

use super::{Code, RegistryError};

/// What a path names. Digests and references are unchecked text still.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/N/tags/list`
    Tags {
        /// Repository.
        name: String,
    },
    /// `/v2/N/manifests/R`
    Manifest {
        /// Repository.
        name: String,
        /// Tag or digest.
        reference: String,
    },
    /// `/v2/N/blobs/D`
    Blob {
        /// Repository.
        name: String,
        /// Digest.
        digest: String,
    },
    /// `/v2/N/blobs/uploads/`
    Uploads {
        /// Repository.
        name: String,
    },
    /// `/v2/N/blobs/uploads/ID`
    Upload {
        /// Repository.
        name: String,
        /// Id of the upload.
        id: String,
    },
    /// `/v2/N/referrers/D`
    Referrers {
        /// Repository.
        name: String,
        /// Digest.
        digest: String,
    },
}

impl Route {
    /// Reads a request path.
    ///
    /// # Errors
    /// `NAME_INVALID` for a bad repository name, `UNKNOWN`-free 404 for paths that are none.
    pub fn parse(path: &str) -> Result<Self, RegistryError> {
        let path = percent_encoding::percent_decode_str(path)
            .decode_utf8()
            .map_err(|_| RegistryError::new(Code::NameInvalid, "the path is no UTF-8"))?;
        let rest = match path.strip_prefix("/v2") {
            Some("" | "/") => return Ok(Self::Base),
            Some(rest) => rest.strip_prefix('/').unwrap_or(rest),
            None => return Err(RegistryError::new(Code::NameUnknown, "no such page")),
        };
        if rest == "_catalog" || rest == "_catalog/" {
            return Ok(Self::Catalog);
        }
        let parts: Vec<&str> = rest.split('/').collect();
        let named = |count: usize| {
            let name = parts[..parts.len() - count].join("/");
            if valid_name(&name) {
                Ok(name)
            } else {
                Err(RegistryError::new(Code::NameInvalid, "invalid repository name"))
            }
        };
        let text = |part: &str| part.to_owned();
        match parts.as_slice() {
            [_, .., "tags", "list"] => Ok(Self::Tags { name: named(2)? }),
            [_, .., "blobs", "uploads", ""] => Ok(Self::Uploads { name: named(3)? }),
            [_, .., "blobs", "uploads"] => Ok(Self::Uploads { name: named(2)? }),
            [_, .., "blobs", "uploads", id] => Ok(Self::Upload { name: named(3)?, id: text(id) }),
            [_, .., "blobs", digest] => Ok(Self::Blob { name: named(2)?, digest: text(digest) }),
            [_, .., "manifests", reference] => {
                Ok(Self::Manifest { name: named(2)?, reference: text(reference) })
            }
            [_, .., "referrers", digest] => {
                Ok(Self::Referrers { name: named(2)?, digest: text(digest) })
            }
            _ => Err(RegistryError::new(Code::NameUnknown, "no such page")),
        }
    }

    /// Name for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Catalog => "catalog",
            Self::Tags { .. } => "tags",
            Self::Manifest { .. } => "manifest",
            Self::Blob { .. } => "blob",
            Self::Uploads { .. } => "blob_upload",
            Self::Upload { .. } => "blob_upload_chunk",
            Self::Referrers { .. } => "referrers",
        }
    }

    /// Methods of the path.
    pub fn allowed(&self) -> &'static str {
        match self {
            Self::Base => "GET, HEAD",
            Self::Catalog | Self::Tags { .. } | Self::Referrers { .. } => "GET",
            Self::Manifest { .. } => "DELETE, GET, HEAD, PUT",
            Self::Blob { .. } => "DELETE, GET, HEAD",
            Self::Uploads { .. } => "POST",
            Self::Upload { .. } => "DELETE, GET, HEAD, PATCH, PUT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_from_the_right() {
        let manifest = Route::parse("/v2/a/manifests/b/manifests/v1").unwrap();
        assert_eq!(
            manifest,
            Route::Manifest { name: "a/manifests/b".into(), reference: "v1".into() }
        );
        let blob = Route::parse("/v2/a/b/blobs/sha256%3Aff").unwrap();
        assert_eq!(blob, Route::Blob { name: "a/b".into(), digest: "sha256:ff".into() });
        assert_eq!(
            Route::parse("/v2/x/blobs/uploads/").unwrap(),
            Route::Uploads { name: "x".into() }
        );
        assert_eq!(Route::parse("/v2").unwrap(), Route::Base);
        for bad in [
            "/v2/A/b/tags/list",
            "/v2/a//b/tags/list",
            "/v2/%2e%2e/tags/list",
            "/v2/tags/list",
            "/v2/x",
            "/",
        ] {
            assert!(Route::parse(bad).is_err(), "{bad}");
        }
    }
}
