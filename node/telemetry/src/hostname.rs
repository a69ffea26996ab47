//! `--id-from-hostname`: a StatefulSet's ordinal, plus 1.

/// The node number in a host name such as `demo-0` or `demo-0.demo-peers.default.svc`: the ordinal plus 1.
pub fn node_number(hostname: &str) -> Result<u32, String> {
    let label = hostname.split('.').next().unwrap_or_default();
    label
        .rsplit_once('-')
        .filter(|(name, ordinal)| !name.is_empty() && ordinal.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|(_, ordinal)| ordinal.parse::<u32>().ok()?.checked_add(1))
        .ok_or_else(|| {
            format!("--id-from-hostname needs a host name that ends in -ORDINAL, this one is '{hostname}'; give --id N instead")
        })
}

/// This machine's host name.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ordinal_plus_one() {
        for (hostname, expected) in [
            ("demo-0", Some(1)),
            ("demo-4", Some(5)),
            ("my-raft-cluster-10.my-raft-cluster-peers.default.svc", Some(11)),
            ("demo", None),
            ("demo-", None),
            ("-3", None),
            ("demo-x1", None),
            ("demo-+1", None),
            ("demo-4294967295", None),
            ("demo-99999999999", None),
            ("", None),
        ] {
            assert_eq!(node_number(hostname).ok(), expected, "{hostname}");
        }
    }
}
