//! Circles of a graph: its strongly connected components of more than one file.

use std::collections::{BTreeMap, BTreeSet};

use super::graph::Needs;

/// Returns each set of files that reach each other.
pub(crate) fn circles(needs: &Needs) -> Vec<BTreeSet<&String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        needs.keys().map(|file| (file, reachable(needs, file))).collect();
    let mut circles: Vec<BTreeSet<&String>> = Vec::new();
    for (file, others) in &reached {
        if circles.iter().any(|circle| circle.contains(file)) {
            continue;
        }
        let back = |other: &&&String| reached.get(**other).is_some_and(|reached| reached.contains(*file));
        let circle: BTreeSet<_> = others.iter().filter(back).copied().collect();
        if circle.len() > 1 {
            circles.push(circle);
        }
    }
    circles
}

/// Returns the needs among the files of a circle.
pub(crate) fn edges<'a>(needs: &'a Needs, circle: &BTreeSet<&'a String>) -> Vec<(&'a String, &'a String)> {
    let mut edges = Vec::new();
    for from in circle {
        for to in needs.get(*from).into_iter().flatten().filter(|to| circle.contains(to)) {
            edges.push((*from, to));
        }
    }
    edges
}

fn reachable<'a>(needs: &'a Needs, file: &'a String) -> BTreeSet<&'a String> {
    let mut reached = BTreeSet::new();
    let mut open = vec![file];
    while let Some(file) = open.pop() {
        for next in needs.get(file).into_iter().flatten() {
            if reached.insert(next) {
                open.push(next);
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(edges: &[(&str, &str)]) -> Needs {
        let mut needs = Needs::new();
        for (from, to) in edges {
            needs.entry((*from).to_owned()).or_default().insert((*to).to_owned());
            needs.entry((*to).to_owned()).or_default();
        }
        needs
    }

    #[test]
    fn circle_is_found_over_a_third_file() {
        let needs = needs(&[("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")]);
        let circles = circles(&needs);
        assert_eq!(circles.len(), 1);
        assert_eq!(circles[0].len(), 3);
        assert_eq!(edges(&needs, &circles[0]).len(), 3);
    }

    #[test]
    fn acyclic_graph_has_no_circle() {
        assert!(circles(&needs(&[("a", "b"), ("a", "c"), ("b", "c")])).is_empty());
    }
}
