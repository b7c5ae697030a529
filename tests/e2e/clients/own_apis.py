"""Calls the own gRPC APIs of the suite through the gateway with a client generated from proto/."""

import pathlib
import sys
import tempfile

import grpc
import grpc_tools
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parents[3] / "proto"
EXPECTED = [
    "flotilla.kv.v1.Admin",
    "flotilla.image.v1.ImageOps",
    "flotilla.engine.v1.Engine",
    "flotilla.metrics.v1.Query",
    "flotilla.dns.v1.ResolveService",
    "flotilla.gateway.v1.Registry",
    "flotilla.kube.v1.KubeApi",
    "flotilla.scheduler.v1.Scheduler",
    "etcdserverpb.KV",
    "runtime.v1.RuntimeService",
]


def generate(folder: str) -> None:
    files = [str(p.relative_to(ROOT)) for p in (ROOT / "flotilla").rglob("*.proto")]
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{ROOT}", f"-I{well_known}", f"--python_out={folder}", f"--grpc_python_out={folder}", *files]
    if protoc.main(arguments) != 0:
        sys.exit("protoc failed")
    sys.path.insert(0, folder)


def main(gateway: str) -> None:
    with tempfile.TemporaryDirectory() as folder, grpc.insecure_channel(gateway) as channel:
        generate(folder)
        listed = set(ProtoReflectionDescriptorDatabase(channel).get_services())
        missing = [name for name in EXPECTED if name not in listed]
        if missing:
            sys.exit(f"reflection does not list {missing}")

        from flotilla.dns.v1 import dns_pb2, dns_pb2_grpc
        from flotilla.kv.v1 import admin_pb2, admin_pb2_grpc

        store = admin_pb2_grpc.AdminStub(channel).GetStore(admin_pb2.GetStoreRequest(), timeout=5)
        assert store.revision > 1, store
        plugins = dns_pb2_grpc.ConfigServiceStub(channel).ListPlugins(dns_pb2.ListPluginsRequest(), timeout=5)
        assert "kubernetes" in plugins.plugins, plugins
    print("all own APIs answered")


if __name__ == "__main__":
    main(sys.argv[1])
