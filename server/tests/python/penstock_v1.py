"""The classes of `penstock.v1`, generated from the .proto file when they are first imported."""

import importlib.resources
import sys
import tempfile

from grpc_tools import protoc

from conftest import ROOT

_folder = tempfile.mkdtemp(prefix="penstock-v1-")
_wire = ROOT / "proto/wire"
_google = importlib.resources.files("grpc_tools") / "_proto"
_arguments = ["protoc", f"-I{_wire}", f"-I{_google}", f"--python_out={_folder}", f"--grpc_python_out={_folder}"]
if protoc.main([*_arguments, str(_wire / "penstock/v1/text.proto")]):
    raise RuntimeError(f"{_wire}/penstock/v1/text.proto does not compile")
sys.path.append(_folder)

from penstock.v1 import text_pb2 as pb  # noqa: E402, F401
from penstock.v1 import text_pb2_grpc as rpc  # noqa: E402, F401
