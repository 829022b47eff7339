//! The rows of the sections: `[server]` stands here, `[limits]` and `[batching]` beside their defaults in the
//! engine.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use penstock_engine::placement::choice::{DeviceChoice, DtypeChoice};
use penstock_engine::settings::{Batching, Limits, ModelConfig};
use penstock_engine::{batching_table, checked_settings, limits_table};
use penstock_telemetry::logging::LogFormat;

use super::control::ModelControl;
use super::kafka::KafkaRoute;
use super::table::section;

/// Most threads of one kind.
const THREADS_MAX: usize = 4096;

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A quarter of the CPUs, one at least.
fn quarter(most: usize) -> impl Fn(usize) -> usize {
    move |cpus| (cpus / 4).clamp(1, most)
}

/// The table of `[server]`.
macro_rules! server_table {
    ($with:ident) => { $with! {
        /// The checked configuration of the server.
        Config, RawServer "server" "Server" "";
        {
            grpc_addr: SocketAddr as Address [= local(8001)]
                "Address of gRPC"
                "Port 0 takes any free port, which the line `ready` names. `:8001` is every IPv4 interface, `localhost:8001` is 127.0.0.1";
            http_addr: SocketAddr as Address [= local(8000)]
                "Address of HTTP";
            metrics_addr: SocketAddr as Address [= local(8002)]
                "Address of `/metrics` and `/health`";
            device: DeviceChoice as Device [= DeviceChoice::Auto]
                "Device of the models: auto, cpu, cuda, cuda:N or cuda:N,M"
                "`cuda` is the first GPU, `cuda:0,1` has every model on each of them. A GPU that cannot be used is an error at once that says what is missing. `auto` takes the first GPU, or the CPU, and logs why";
            dtype: DtypeChoice as Dtype [= DtypeChoice::Auto]
                "Number format of the models: auto, f32, f16, bf16 or int8"
                "A GPU has `f32`, `f16` and `bf16`, and `auto` is `f16` there. The CPU has `f32`, which `auto` takes, `int8`, and `bf16` if the processor multiplies it (AMX or AVX512-BF16). A format that the device lacks is refused";
            cuda_graphs: bool as Switch [= true]
                "On a GPU: start the launches of a small batch by one call"
                "They are recorded as one graph first ([cuda.md](cuda.md#small-batches))";
            threads: usize as Count [cpus |cpus: usize| cpus.min(THREADS_MAX), "the CPUs this process may use"] [..= THREADS_MAX]
                "Threads that compute"
                "Affinity and the cgroup's CPU quota are honoured";
            pin_threads: bool as Switch [= false]
                "Keep each compute thread on a CPU of its own"
                "Linux only, in the order of the CPUs that this process may use. It is for a process that has its CPUs for itself (a cpuset, `taskset`): two processes that pin to the same CPUs wait for each other while other CPUs idle";
            tokenizer_threads: usize as Count [cpus quarter(16), "a quarter of the CPUs, 1 to 16"] [..= THREADS_MAX]
                "Threads that tokenize";
            io_threads: usize as Count [cpus quarter(8), "a quarter of the CPUs, 1 to 8"] [..= THREADS_MAX]
                "Threads that read and write sockets";
            drain_timeout: Duration as Time [= Duration::from_secs(30)]
                "Longest time that a shutdown waits for accepted work";
            model_control: ModelControl as Control [= ModelControl::Off]
                "Whether requests may load and unload models: off or on"
                "`on` lets whoever reaches the gRPC or HTTP port load and unload the configured models, as Triton's `--model-control-mode=explicit` does. With `off` such a request is `PERMISSION_DENIED` / 403";
            instance: Option<String> as Text [none "random"]
                "Name of this process among several, such as the name of its pod"
                "The Kafka routes use it: letters, digits, `-`, `_` and `.`. With a stable name, a process that comes back fences its predecessor at once";
            log: String as Text [= "info".to_owned()]
                "Filter of log lines, such as debug or warn,penstock=debug"
                "If nothing else sets it, `RUST_LOG` does";
            log_format: LogFormat as Format [= LogFormat::Auto]
                "Format of log lines: auto (text on a terminal, JSON otherwise), text or json"
                "Logs go to stderr. No request waits for it, and lines that it does not take are counted (`penstock_log_lines_lost_total`)";
        }
        {
            /// The bounds.
            limits: Limits;
            /// The models; names are unique.
            models: Vec<ModelConfig>;
            /// The Kafka routes; names are unique.
            kafka: Vec<KafkaRoute>;
        }
    } };
}

server_table!(checked_settings);
server_table!(section);
limits_table!(section);
batching_table!(section);
