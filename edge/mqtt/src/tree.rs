//! The subscription tree: one topic against all filters of a shard at once.
//!
//! A node per filter level, its plain children hashed by name, `+` and `#` in slots of their own; a match walks at most
//! two branches per level. Invariant: a node without subscribers and without children does not exist, so that memory
//! follows the subscriptions there are. Neighbours: `router` asks it once per message; [`TopicFilter::matches`] is its
//! oracle in the tests.

use crate::filter::TopicFilter;
use crate::topic::is_server_topic;
use hashbrown::HashMap;

/// Filters and, per filter, one value for each subscriber (`K`).
#[derive(Debug)]
pub struct SubscriptionTree<K, V> {
    root: Node<K, V>,
    subscriptions: usize,
}

#[derive(Debug)]
struct Node<K, V> {
    /// Exactly this level.
    children: HashMap<Box<str>, Node<K, V>>,
    /// `+` at this level.
    plus: Option<Box<Node<K, V>>>,
    /// Who ends here.
    here: Vec<(K, V)>,
    /// Who has `#` after this level.
    hash: Vec<(K, V)>,
}

impl<K, V> Default for Node<K, V> {
    fn default() -> Self {
        Self { children: HashMap::new(), plus: None, here: Vec::new(), hash: Vec::new() }
    }
}

impl<K, V> Node<K, V> {
    fn is_unused(&self) -> bool {
        self.children.is_empty()
            && self.plus.is_none()
            && self.here.is_empty()
            && self.hash.is_empty()
    }
}

impl<K, V> Default for SubscriptionTree<K, V> {
    fn default() -> Self {
        Self { root: Node::default(), subscriptions: 0 }
    }
}

impl<K: Copy + PartialEq, V> SubscriptionTree<K, V> {
    /// Adds or replaces the subscription of `subscriber` to `filter`; returns what it replaced. [MQTT-3.8.4-3]
    pub fn insert(&mut self, filter: &TopicFilter, subscriber: K, value: V) -> Option<V> {
        let mut node = &mut self.root;
        let mut entries = None;
        for level in filter.as_str().split('/') {
            match level {
                "#" => {
                    entries = Some(&mut node.hash);
                    break;
                }
                "+" => node = node.plus.get_or_insert_with(Box::default),
                name => node = node.children.entry(name.into()).or_default(),
            }
        }
        let entries = match entries {
            Some(hash) => hash,
            None => &mut node.here,
        };
        match entries.iter_mut().find(|(key, _)| *key == subscriber) {
            Some((_, there)) => Some(std::mem::replace(there, value)),
            None => {
                entries.push((subscriber, value));
                self.subscriptions += 1;
                None
            }
        }
    }

    /// Takes the subscription out and the nodes that it alone held. `None`: there was none.
    pub fn remove(&mut self, filter: &TopicFilter, subscriber: K) -> Option<V> {
        let removed = Self::remove_below(&mut self.root, filter.as_str().split('/'), subscriber);
        self.subscriptions -= usize::from(removed.is_some());
        removed
    }

    /// How many subscriptions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.subscriptions
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.subscriptions == 0
    }

    /// Calls `found` for each subscription whose filter matches; a subscriber with overlapping filters comes once per
    /// filter.
    pub fn for_each_match<'a>(&'a self, topic: &str, mut found: impl FnMut(K, &'a V)) {
        Self::walk(&self.root, Some(topic), is_server_topic(topic), &mut found);
    }

    /// Recursion is bounded by the filters' depth, not by the topic's: it goes only where a node is.
    fn walk<'a>(
        node: &'a Node<K, V>,
        rest: Option<&str>,
        wildcards_barred: bool,
        found: &mut impl FnMut(K, &'a V),
    ) {
        // [MQTT-4.7.2-1]: a leading wildcard does not reach a topic that begins with '$'.
        if !wildcards_barred {
            for (key, value) in &node.hash {
                found(*key, value);
            }
        }
        let Some(rest) = rest else {
            for (key, value) in &node.here {
                found(*key, value);
            }
            return;
        };
        let (level, rest) = match rest.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (rest, None),
        };
        if !node.children.is_empty()
            && let Some(child) = node.children.get(level)
        {
            Self::walk(child, rest, false, found);
        }
        if !wildcards_barred && let Some(plus) = &node.plus {
            Self::walk(plus, rest, false, found);
        }
    }

    fn remove_below<'f>(
        node: &mut Node<K, V>,
        mut levels: impl Iterator<Item = &'f str>,
        subscriber: K,
    ) -> Option<V> {
        let take = |entries: &mut Vec<(K, V)>| {
            let at = entries.iter().position(|(key, _)| *key == subscriber)?;
            let (_, value) = entries.swap_remove(at);
            if entries.is_empty() {
                *entries = Vec::new();
            }
            Some(value)
        };
        match levels.next() {
            None => take(&mut node.here),
            Some("#") => take(&mut node.hash),
            Some("+") => {
                let plus = node.plus.as_mut()?;
                let removed = Self::remove_below(plus, levels, subscriber);
                if plus.is_unused() {
                    node.plus = None;
                }
                removed
            }
            Some(name) => {
                let child = node.children.get_mut(name)?;
                let removed = Self::remove_below(child, levels, subscriber);
                if child.is_unused() {
                    node.children.remove(name);
                    if node.children.is_empty() {
                        node.children = HashMap::new();
                    }
                }
                removed
            }
        }
    }
}

#[cfg(test)]
mod tests;
