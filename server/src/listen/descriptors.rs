//! File descriptors of the process: the limit is raised, and shared out between the ports before they open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, info, warn};

/// Descriptors that are no connections: the log, model files, event queues, listeners.
const OTHERS: usize = 32;
/// Descriptors of one Kafka route: connections of its consumer and its producer to the brokers.
const KAFKA_ROUTE: usize = 64;
/// Connections of the metrics port: some scrapers and probes.
const METRICS_MAX: usize = 64;
/// Fewest connections of a port with which the server is of use.
const PORT_MIN: usize = 4;

/// Connections that each port may have open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortLimits {
    /// Connections of the gRPC port, and as many of the HTTP port.
    pub protocol: usize,
    /// Connections of the metrics port, which no client of the others can take.
    pub metrics: usize,
}

/// The process may open too few files to serve.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the process may open {limit} files, and limits.connections_max = {connections_max} on two ports needs {needed}: \
     raise the hard limit (`ulimit -Hn`, LimitNOFILE= of systemd) to {needed}"
)]
pub struct TooFewDescriptors {
    limit: usize,
    connections_max: usize,
    needed: usize,
}

/// Raises the limit of open files to its hard limit, and shares it out.
///
/// Each protocol's port has `connections_max` connections, or what the limit leaves for it; a warning names both.
pub fn share_out(connections_max: usize, kafka_routes: usize) -> Result<PortLimits, TooFewDescriptors> {
    let limit = raise();
    let limits = port_limits(limit, connections_max, kafka_routes)?;
    if limits.protocol < connections_max {
        let needed = needed(connections_max, kafka_routes);
        warn!(
            limit,
            connections_max,
            needed,
            connections = limits.protocol,
            "the process may open too few files for limits.connections_max: each port has fewer connections; \
             raise the hard limit (ulimit -Hn, LimitNOFILE= of systemd) or lower connections_max"
        );
    }
    Ok(limits)
}

/// The limit of open files, after it was raised as far as it goes.
fn raise() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let size = |limit: Option<u64>| limit.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    if current == maximum {
        return size(current);
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => {
            debug!(
                from = size(current),
                to = size(maximum),
                "raised the limit of open files"
            );
            size(maximum)
        }
        Err(error) => {
            info!(%error, limit = size(current), "the limit of open files stays as it is");
            size(current)
        }
    }
}

fn reserve(connections_max: usize, limit: usize) -> usize {
    METRICS_MAX.min(connections_max).min((limit / 8).max(1))
}

/// Descriptors for all connections.
fn needed(connections_max: usize, kafka_routes: usize) -> usize {
    let others = OTHERS.saturating_add(kafka_routes.saturating_mul(KAFKA_ROUTE));
    connections_max
        .saturating_mul(2)
        .saturating_add(reserve(connections_max, usize::MAX))
        .saturating_add(others)
}

fn port_limits(
    limit: usize,
    connections_max: usize,
    kafka_routes: usize,
) -> Result<PortLimits, TooFewDescriptors> {
    let metrics = reserve(connections_max, limit);
    let others = OTHERS.saturating_add(kafka_routes.saturating_mul(KAFKA_ROUTE));
    let left = limit.saturating_sub(others).saturating_sub(metrics);
    let protocol = connections_max.min(left / 2);
    if protocol < connections_max.min(PORT_MIN) {
        return Err(TooFewDescriptors {
            limit,
            connections_max,
            needed: needed(connections_max, kafka_routes),
        });
    }
    Ok(PortLimits { protocol, metrics })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_port_keeps_its_share_and_the_others_get_the_rest() {
        let check = |limit, connections_max, routes, protocol, metrics| {
            assert_eq!(
                port_limits(limit, connections_max, routes),
                Ok(PortLimits { protocol, metrics }),
                "{limit} files, {connections_max} connections, {routes} routes"
            );
        };
        check(usize::MAX, 1024, 0, 1024, 64);
        check(1_048_576, 1024, 2, 1024, 64);
        check(needed(1024, 0), 1024, 0, 1024, 64);
        check(1024, 1024, 0, 464, 64);
        check(1024, 1024, 3, 368, 64);
        check(64, 1024, 0, 12, 8);
        check(1024, 1, 0, 1, 1);
        check(usize::MAX, usize::MAX, 0, usize::MAX / 2 - 48, 64);
    }

    #[test]
    fn a_limit_that_serves_nobody_is_an_error_with_both_numbers() {
        let refused = port_limits(40, 1024, 0).unwrap_err().to_string();
        assert!(refused.contains("may open 40 files"), "{refused}");
        assert!(refused.contains("connections_max = 1024"), "{refused}");
        assert!(refused.contains("to 2144"), "{refused}");
    }
}
