//! Compiles the .proto files with protox, so that no `protoc` is needed on the machine that builds.

#[path = "build/schemas.rs"]
mod schemas;

use std::path::PathBuf;

const FILES: [&str; 3] = [
    "grpc_service.proto",
    "model_config.proto",
    "penstock/v1/text.proto",
];
const FOLDER: &str = "wire";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed={FOLDER}");
    println!("cargo:rerun-if-changed=build");
    let mut compiler = protox::Compiler::new([FOLDER])?;
    // Reflection returns the comments too.
    compiler
        .include_source_info(true)
        .include_imports(true)
        .open_files(FILES)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    let files = compiler.file_descriptor_set();
    std::fs::write(out.join("schemas.rs"), schemas::of_requests(&files)?)?;
    tonic_prost_build::configure()
        .codec_path("crate::codec::Codec")
        // A raw tensor is a view of the receive buffer, not a copy.
        .bytes(".")
        .build_transport(false)
        .compile_fds(files)?;
    Ok(())
}
