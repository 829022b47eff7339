"""Writes the names, types and numbers of tritonclient's protocol, one a line, sorted.

    pip install tritonclient[grpc]==2.73.0 && python3 table.py > tritonclient-2.73.0.txt
"""

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from tritonclient.grpc import model_config_pb2, service_pb2

TYPES = {number: name[5:].lower() for name, number in FieldDescriptorProto.Type.items()}


def message(path: str, m: DescriptorProto):
    path = f"{path}.{m.name}"
    yield f"message {path}"
    for f in m.field:
        kind = f.type_name or TYPES[f.type]
        many = "repeated" if f.label == FieldDescriptorProto.LABEL_REPEATED else "one"
        choice = m.oneof_decl[f.oneof_index].name if f.HasField("oneof_index") else "-"
        yield f"field {path}.{f.name} {f.number} {many} {kind} {choice}"
    for nested in m.nested_type:
        yield from message(path, nested)
    for e in m.enum_type:
        yield from enum(path, e)


def enum(path: str, e):
    for value in e.value:
        yield f"value {path}.{e.name}.{value.name} {value.number}"


def file(module):
    f = FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(f)
    for service in f.service:
        for rpc in service.method:
            streams = f"{int(rpc.client_streaming)}{int(rpc.server_streaming)}"
            yield f"rpc .{f.package}.{service.name}/{rpc.name} {rpc.input_type} {rpc.output_type} {streams}"
    for m in f.message_type:
        yield from message(f".{f.package}", m)
    for e in f.enum_type:
        yield from enum(f".{f.package}", e)


for module in (service_pb2, model_config_pb2):
    print("\n".join(f"{module.DESCRIPTOR.name} {line}" for line in sorted(file(module))))
