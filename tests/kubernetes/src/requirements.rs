//! What has to be given, as variables. Where it is not, a test says so and skips, unless nothing may be skipped.

use std::io::Write;

use crate::command;

/// Set (to anything) where everything that a test may need is given: a skip is then a failure.
const REQUIRE_ALL: &str = "RAFT_TEST_REQUIRE_ALL";
/// Names the file that says which cluster is meant.
const KUBECONFIG: &str = "KUBECONFIG";
/// The images, which the cluster's machines have or can pull.
const IMAGES: &str = "RAFT_TEST_IMAGES";
/// How often to try what is measured.
const ROUNDS: &str = "RAFT_TEST_ROUNDS";
/// What the images look like.
const IMAGES_EXAMPLE: &str =
    "operator=raft-operator:0.1.0,node=raft-node:0.1.0,replicator=raft-replicator:0.1.0";

/// The images under test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// Of the operator.
    pub operator: String,
    /// With raft-node and raftctl.
    pub node: String,
    /// With raft-replicator.
    pub replicator: String,
    /// Another image with raft-node, to change to, if there is one.
    pub node_next: Option<String>,
    /// With the key-value store, if there is one.
    pub key_value: Option<String>,
    /// With the ledger, and with `python3`, if there is one.
    pub ledger: Option<String>,
}

impl Images {
    /// From what [`IMAGES`] holds.
    fn parse(text: &str) -> Result<Self, String> {
        let given = |wanted: &str| {
            text.split(',')
                .filter_map(|pair| pair.trim().split_once('='))
                .find_map(|(name, image)| (name == wanted && !image.is_empty()).then(|| image.to_owned()))
        };
        let one = |wanted: &str| {
            given(wanted).ok_or_else(|| {
                format!("{IMAGES} names no image for {wanted}; give {IMAGES}={IMAGES_EXAMPLE}")
            })
        };
        Ok(Self {
            operator: one("operator")?,
            node: one("node")?,
            replicator: one("replicator")?,
            node_next: given("node-next"),
            key_value: given("key-value"),
            ledger: given("ledger"),
        })
    }
}

/// The images, where there are a cluster and the programs to use it with; otherwise `test` is skipped.
///
/// # Panics
/// When `RAFT_TEST_REQUIRE_ALL` is set and something is missing, and when `RAFT_TEST_IMAGES` cannot be understood.
pub fn cluster(test: &str) -> Option<Images> {
    for variable in [KUBECONFIG, IMAGES] {
        if std::env::var_os(variable).is_none() {
            skip(test, &format!("{variable} is not set"));
            return None;
        }
    }
    let all_there = ["kubectl", "helm"].into_iter().all(|name| has(test, name));
    let given = std::env::var(IMAGES).unwrap_or_default();
    all_there.then(|| Images::parse(&given).unwrap_or_else(|why| panic!("{why}")))
}

/// An image that not every story needs; otherwise `test` is skipped.
///
/// # Panics
/// When `RAFT_TEST_REQUIRE_ALL` is set and there is none.
pub fn image<'a>(test: &str, name: &str, given: Option<&'a str>) -> Option<&'a str> {
    if given.is_none() {
        skip(test, &format!("{IMAGES} names no image for {name}"));
    }
    given
}

/// What that variable holds; otherwise `test` is skipped.
///
/// # Panics
/// When `RAFT_TEST_REQUIRE_ALL` is set and the variable is not.
pub fn variable(test: &str, name: &str) -> Option<String> {
    let given = std::env::var(name).ok().filter(|text| !text.is_empty());
    if given.is_none() {
        skip(test, &format!("{name} is not set"));
    }
    given
}

/// How often something is tried whose results differ from time to time: `RAFT_TEST_ROUNDS`, or else so often.
///
/// # Panics
/// Where that is not a number.
pub fn rounds(otherwise: usize) -> usize {
    std::env::var(ROUNDS).map_or(otherwise, |text| {
        text.parse()
            .unwrap_or_else(|error| panic!("{ROUNDS} is '{text}': {error}"))
    })
}

/// Whether that program is on PATH; otherwise `test` is skipped.
///
/// # Panics
/// When `RAFT_TEST_REQUIRE_ALL` is set and it is not.
pub fn has(test: &str, program: &str) -> bool {
    let there = command::is_there(program);
    if !there {
        skip(test, &format!("{program} is not on PATH"));
    }
    there
}

/// Says on stderr, past the capture of test output, what is left out and why.
///
/// # Panics
/// When `RAFT_TEST_REQUIRE_ALL` is set.
pub fn skip(test: &str, why: &str) {
    assert!(
        std::env::var_os(REQUIRE_ALL).is_none(),
        "{test} would be skipped, and {REQUIRE_ALL} is set: {why}"
    );
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_given_by_name() {
        let images = Images::parse(IMAGES_EXAMPLE).unwrap();
        assert_eq!(images.node, "raft-node:0.1.0");
        assert_eq!(images.replicator, "raft-replicator:0.1.0");
        assert_eq!(images.node_next, None);
        let images = Images::parse(&format!("{IMAGES_EXAMPLE},node-next=a:2")).unwrap();
        assert_eq!(images.node_next.as_deref(), Some("a:2"));
        assert_eq!((images.key_value, images.ledger), (None, None));
        let images = Images::parse(&format!("{IMAGES_EXAMPLE},key-value=kv:1,ledger=l:1")).unwrap();
        assert_eq!(images.key_value.as_deref(), Some("kv:1"));
        assert_eq!(images.ledger.as_deref(), Some("l:1"));
        let error = Images::parse("operator=a,node=b,replicator=").unwrap_err();
        assert!(error.contains("no image for replicator"), "{error}");
    }
}
