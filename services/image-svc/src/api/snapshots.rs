//! containerd's snapshots.v1 service.

use std::collections::{BTreeMap, HashMap};

use flotilla_proto::containerd::containerd::services::snapshots::v1::snapshots_server::Snapshots;
use flotilla_proto::containerd::containerd::services::snapshots::v1::{
    CleanupRequest, CommitSnapshotRequest, Info, Kind, ListSnapshotsRequest, ListSnapshotsResponse,
    MountsRequest, MountsResponse, PrepareSnapshotRequest, PrepareSnapshotResponse,
    RemoveSnapshotRequest, StatSnapshotRequest, StatSnapshotResponse, UpdateSnapshotRequest,
    UpdateSnapshotResponse, UsageRequest, UsageResponse, ViewSnapshotRequest, ViewSnapshotResponse,
};
use flotilla_proto::containerd::containerd::types::Mount;
use tonic::{Request, Response, Status};

use super::namespace;
use crate::engine::filter::Filters;
use crate::snapshot::{MountSpec, SnapshotKind, SnapshotRow, Snapshotter};

/// Snapshots of one message of `List`, as containerd.
const PER_MESSAGE: usize = 100;

/// The service.
#[derive(Debug, Clone)]
pub struct SnapshotsApi {
    snapshotter: Snapshotter,
}

impl SnapshotsApi {
    /// A service over `snapshotter`.
    pub fn new(snapshotter: Snapshotter) -> Self {
        Self { snapshotter }
    }
}

/// Only one snapshotter exists; others are unknown to us.
fn check(snapshotter: &str) -> Result<(), Status> {
    if matches!(snapshotter, "" | "overlayfs" | "overlay" | "flotilla") {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "snapshotter not loaded: {snapshotter}: invalid argument"
    )))
}

fn wire_mounts(mounts: Vec<MountSpec>) -> Vec<Mount> {
    let wire = |mount: MountSpec| Mount {
        r#type: mount.kind.to_owned(),
        source: mount.source,
        target: String::new(),
        options: mount.options,
    };
    mounts.into_iter().map(wire).collect()
}

pub(super) fn timestamp(nanos: i64) -> prost_types::Timestamp {
    let (seconds, rest) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    prost_types::Timestamp { seconds, nanos: i32::try_from(rest).unwrap_or_default() }
}

fn wire_info(name: String, row: SnapshotRow) -> Info {
    let kind = match row.kind {
        SnapshotKind::View => Kind::View,
        SnapshotKind::Active => Kind::Active,
        SnapshotKind::Committed => Kind::Committed,
    };
    Info {
        name,
        parent: row.parent,
        kind: kind.into(),
        created_at: Some(timestamp(row.created)),
        updated_at: Some(timestamp(row.updated)),
        labels: row.labels.into_iter().collect(),
    }
}

fn ordered(labels: HashMap<String, String>) -> BTreeMap<String, String> {
    labels.into_iter().collect()
}

#[tonic::async_trait]
impl Snapshots for SnapshotsApi {
    async fn prepare(
        &self,
        request: Request<PrepareSnapshotRequest>,
    ) -> Result<Response<PrepareSnapshotResponse>, Status> {
        let ns = namespace(&request)?;
        let r = request.into_inner();
        check(&r.snapshotter)?;
        let mounts = self
            .snapshotter
            .prepare(&ns, &r.key, &r.parent, SnapshotKind::Active, ordered(r.labels))
            .await?;
        Ok(Response::new(PrepareSnapshotResponse { mounts: wire_mounts(mounts) }))
    }

    async fn view(
        &self,
        request: Request<ViewSnapshotRequest>,
    ) -> Result<Response<ViewSnapshotResponse>, Status> {
        let ns = namespace(&request)?;
        let r = request.into_inner();
        check(&r.snapshotter)?;
        let mounts = self
            .snapshotter
            .prepare(&ns, &r.key, &r.parent, SnapshotKind::View, ordered(r.labels))
            .await?;
        Ok(Response::new(ViewSnapshotResponse { mounts: wire_mounts(mounts) }))
    }

    async fn mounts(
        &self,
        request: Request<MountsRequest>,
    ) -> Result<Response<MountsResponse>, Status> {
        let ns = namespace(&request)?;
        let r = request.into_inner();
        check(&r.snapshotter)?;
        let mounts = self.snapshotter.mounts(&ns, &r.key)?;
        Ok(Response::new(MountsResponse { mounts: wire_mounts(mounts) }))
    }

    async fn commit(
        &self,
        request: Request<CommitSnapshotRequest>,
    ) -> Result<Response<()>, Status> {
        let ns = namespace(&request)?;
        let r = request.into_inner();
        check(&r.snapshotter)?;
        if !r.parent.is_empty() {
            return Err(Status::unimplemented(
                "not supported yet: parent in CommitSnapshotRequest",
            ));
        }
        self.snapshotter.commit(&ns, &r.name, &r.key, ordered(r.labels)).await?;
        Ok(Response::new(()))
    }

    async fn remove(
        &self,
        request: Request<RemoveSnapshotRequest>,
    ) -> Result<Response<()>, Status> {
        let ns = namespace(&request)?;
        let r = request.into_inner();
        check(&r.snapshotter)?;
        self.snapshotter.remove(&ns, &r.key).await?;
        Ok(Response::new(()))
    }

    async fn stat(
        &self,
        request: Request<StatSnapshotRequest>,
    ) -> Result<Response<StatSnapshotResponse>, Status> {
        let ns = namespace(&request)?;
        let r = request.into_inner();
        check(&r.snapshotter)?;
        let row = self.snapshotter.stat(&ns, &r.key)?;
        Ok(Response::new(StatSnapshotResponse { info: Some(wire_info(r.key, row)) }))
    }

    async fn update(
        &self,
        request: Request<UpdateSnapshotRequest>,
    ) -> Result<Response<UpdateSnapshotResponse>, Status> {
        let ns = namespace(&request)?;
        let r = request.into_inner();
        check(&r.snapshotter)?;
        let info =
            r.info.ok_or_else(|| Status::invalid_argument("info is required: invalid argument"))?;
        let fields = label_fields(r.update_mask)?;
        let row = self.snapshotter.update(&ns, &info.name, ordered(info.labels), fields).await?;
        Ok(Response::new(UpdateSnapshotResponse { info: Some(wire_info(info.name, row)) }))
    }

    type ListStream =
        futures::stream::Iter<std::vec::IntoIter<Result<ListSnapshotsResponse, Status>>>;

    async fn list(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let ns = namespace(&request)?;
        let r = request.into_inner();
        check(&r.snapshotter)?;
        let filters = Filters::parse(&r.filters)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let mut infos = Vec::new();
        for (name, row) in self.snapshotter.list(&ns)? {
            let kind = match row.kind {
                SnapshotKind::View => "view",
                SnapshotKind::Active => "active",
                SnapshotKind::Committed => "committed",
            };
            if filters
                .pass(&[("name", &name), ("parent", &row.parent), ("kind", kind)], &row.labels)
            {
                infos.push(wire_info(name, row));
            }
        }
        let messages: Vec<_> = infos
            .chunks(PER_MESSAGE)
            .map(|part| Ok(ListSnapshotsResponse { info: part.to_vec() }))
            .collect();
        Ok(Response::new(futures::stream::iter(messages)))
    }

    async fn usage(
        &self,
        request: Request<UsageRequest>,
    ) -> Result<Response<UsageResponse>, Status> {
        let ns = namespace(&request)?;
        let r = request.into_inner();
        check(&r.snapshotter)?;
        let usage = self.snapshotter.usage(&ns, &r.key).await?;
        Ok(Response::new(UsageResponse { size: usage.size, inodes: usage.inodes }))
    }

    async fn cleanup(&self, request: Request<CleanupRequest>) -> Result<Response<()>, Status> {
        let ns = namespace(&request)?;
        check(&request.into_inner().snapshotter)?;
        self.snapshotter.cleanup(&ns).await?;
        Ok(Response::new(()))
    }
}

/// Which labels an update mask names; `None` for all.
pub(super) fn label_fields(
    mask: Option<prost_types::FieldMask>,
) -> Result<Option<Vec<String>>, Status> {
    let paths = mask.map(|mask| mask.paths).unwrap_or_default();
    let mut fields = Vec::new();
    for path in paths {
        match path.strip_prefix("labels.") {
            Some(name) => fields.push(name.to_owned()),
            None if path == "labels" => return Ok(None),
            None => {
                return Err(Status::invalid_argument(format!(
                    "cannot update {path:?} field: invalid argument"
                )));
            }
        }
    }
    Ok((!fields.is_empty()).then_some(fields))
}
