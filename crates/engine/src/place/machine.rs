//! Whether a host is this very machine. Names are not resolved: what is asked now must be answered without a network.

use std::net::{IpAddr, Ipv6Addr};

use super::System;

/// Whether a host, as a URL or a mount names it, is this machine as far as it knows.
pub(super) fn is_this(host: &str, system: &System) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_lowercase();
    match host.parse::<IpAddr>() {
        Ok(address) => address.is_loopback() || address.is_unspecified() || system.addresses.contains(&address),
        Err(_) => host == "localhost" || host.ends_with(".localhost") || system.names.contains(&host),
    }
}

/// The machine's own addresses: `/proc/net/fib_trie` has those of IPv4 as `/32 host LOCAL`, on the line after the address,
/// `/proc/net/if_inet6` those of IPv6.
pub(super) fn addresses(trie: &str, inet6: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    let mut last: Option<IpAddr> = None;
    for line in trie.lines().map(str::trim) {
        match line.strip_prefix("|-- ") {
            Some(address) => last = address.parse().ok(),
            None if line.starts_with("/32 host LOCAL") => found.extend(last.take()),
            None => {}
        }
    }
    let six = |line: &str| u128::from_str_radix(line.split(' ').next()?, 16).ok().map(Ipv6Addr::from);
    found.extend(inet6.lines().filter_map(six).map(IpAddr::V6));
    found.sort_unstable();
    found.dedup();
    found
}

/// The machine's own names, in lower case: its host name, and what `/etc/hosts` calls its addresses.
pub(super) fn names(hostname: &str, hosts: &str, addresses: &[IpAddr]) -> Vec<String> {
    let mut names = vec![hostname.trim().to_lowercase()];
    for line in hosts.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
        if address.is_some_and(|address| address.is_loopback() || addresses.contains(&address)) {
            names.extend(words.map(str::to_lowercase));
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_where_the_kernel_lists_them() {
        let trie = "Local:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 192.0.2.7\n        /32 host LOCAL\n     |-- 192.0.2.255\n        \
            /32 link BROADCAST\n";
        let six = "20010db8000000000000000000000007 02 40 00 80 eth0\n";
        let found = addresses(trie, six);
        assert_eq!(found, ["192.0.2.7".parse::<IpAddr>().unwrap(), "2001:db8::7".parse().unwrap()]);
        let hosts = "127.0.1.1 shop.example.org shop # me\n192.0.2.7 www\n192.0.2.8 backup\n";
        assert_eq!(names("Shop\n", hosts, &found), ["shop", "shop.example.org", "shop", "www"]);
    }
}
