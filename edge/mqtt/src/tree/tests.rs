//! The tree against the plain matcher.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn level() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec!["a", "b", "é", "日本", "", "$SYS", "$x"]).prop_map(String::from),
        1 => "[a-cé ]{0,2}",
    ]
}

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("not empty", |t| !t.is_empty())
}

fn filter() -> impl Strategy<Value = TopicFilter> {
    let level = prop_oneof![3 => level(), 1 => Just("+".to_owned())];
    (prop::collection::vec(level, 0..5), any::<bool>())
        .prop_map(|(mut levels, hash)| {
            if hash || levels.is_empty() {
                levels.push("#".to_owned());
            }
            levels.join("/")
        })
        .prop_filter_map("checked", |f| TopicFilter::new(&f).ok())
}

fn matched(tree: &SubscriptionTree<u8, u32>, topic: &str) -> Vec<(u8, u32)> {
    let mut out = Vec::new();
    tree.for_each_match(topic, |key, value| out.push((key, *value)));
    out.sort_unstable();
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever is inserted, replaced and removed, the tree finds what the plain matcher finds.
    #[test]
    fn agrees_with_the_plain_matcher(
        steps in prop::collection::vec((filter(), 0u8..3, any::<bool>()), 1..24),
        topics in prop::collection::vec(topic(), 1..8),
    ) {
        let mut tree = SubscriptionTree::default();
        let mut plain: BTreeMap<(TopicFilter, u8), u32> = BTreeMap::new();
        for (number, (filter, key, insert)) in steps.into_iter().enumerate() {
            if insert {
                let value = u32::try_from(number).unwrap();
                let replaced = plain.insert((filter.clone(), key), value);
                prop_assert_eq!(tree.insert(&filter, key, value), replaced);
            } else {
                let removed = plain.remove(&(filter.clone(), key));
                prop_assert_eq!(tree.remove(&filter, key), removed);
            }
        }
        prop_assert_eq!(tree.len(), plain.len());
        for topic in topics {
            let mut wanted: Vec<(u8, u32)> = plain
                .iter()
                .filter(|((filter, _), _)| filter.matches(&topic))
                .map(|((_, key), value)| (*key, *value))
                .collect();
            wanted.sort_unstable();
            prop_assert_eq!(matched(&tree, &topic), wanted, "topic {:?}", topic);
        }
        for (filter, key) in plain.into_keys() {
            prop_assert!(tree.remove(&filter, key).is_some());
        }
        prop_assert!(tree.is_empty() && tree.root.is_unused(), "nodes outlived their subscribers");
    }
}

#[test]
fn a_missing_subscription_is_not_removed() {
    let mut tree = SubscriptionTree::default();
    let filter = TopicFilter::new("a/+/#").unwrap();
    assert_eq!(tree.insert(&filter, 1, 10), None);
    assert_eq!(tree.remove(&filter, 2), None);
    assert_eq!(tree.remove(&TopicFilter::new("a/+").unwrap(), 1), None);
    assert_eq!(tree.len(), 1);
    assert_eq!(matched(&tree, "a/é"), [(1, 10)]);
    assert_eq!(tree.remove(&filter, 1), Some(10));
    assert!(tree.is_empty());
}

#[test]
fn the_deepest_filter_is_walked() {
    let deepest = vec!["é"; crate::filter::FILTER_LEVELS_MAX].join("/");
    let mut tree = SubscriptionTree::default();
    tree.insert(&TopicFilter::new(&deepest).unwrap(), 1, 7);
    assert_eq!(matched(&tree, &deepest), [(1, 7)]);
    assert_eq!(matched(&tree, &"é/".repeat(30_000)), []);
}
