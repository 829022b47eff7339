//! Counts and limits the connections of each client address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts of the open connections; bounded by their number.
type Counts = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// Admits connections up to a bound for each address.
#[derive(Clone, Debug)]
pub(super) struct AddressLimit {
    open: Counts,
    each_max: usize,
}

impl AddressLimit {
    /// At most `each_max` open connections of one address.
    pub fn new(each_max: usize) -> AddressLimit {
        AddressLimit {
            open: Counts::default(),
            each_max,
        }
    }

    /// The place of a connection from `addr`; `None` if the address has its share.
    pub fn admit(&self, addr: IpAddr) -> Option<AddressPlace> {
        let client = client(addr);
        let mut open = self.open.lock();
        let count = open.entry(client).or_default();
        if *count >= self.each_max {
            return None;
        }
        *count += 1;
        Some(AddressPlace {
            open: Arc::clone(&self.open),
            client,
        })
    }
}

/// One open connection of an address; dropping it frees the place.
#[derive(Debug)]
pub(super) struct AddressPlace {
    open: Counts,
    client: IpAddr,
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        if let Some(count) = open.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.client);
            }
        }
    }
}

/// The address that is counted. One client of IPv6 has the 2^64 addresses of its network.
fn client(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V4(addr) => IpAddr::V4(addr),
        IpAddr::V6(addr) => IpAddr::V6(Ipv6Addr::from_bits(addr.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_no_more() {
        let limit = AddressLimit::new(2);
        let admit = |addr: &str| limit.admit(addr.parse().unwrap());
        let first = admit("10.0.0.1");
        let second = admit("::ffff:10.0.0.1");
        assert!(first.is_some() && second.is_some());
        assert!(
            admit("10.0.0.1").is_none(),
            "the mapped address is the same client"
        );
        assert!(admit("10.0.0.2").is_some());
        drop(first);
        let again = admit("10.0.0.1");
        assert!(again.is_some());
        drop((second, again));
        assert!(limit.open.lock().is_empty(), "no address is kept");
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let limit = AddressLimit::new(1);
        let place = limit.admit("2001:db8:1:2::1".parse().unwrap());
        assert!(place.is_some());
        assert!(limit.admit("2001:db8:1:2:ffff::9".parse().unwrap()).is_none());
        assert!(limit.admit("2001:db8:1:3::1".parse().unwrap()).is_some());
    }
}
