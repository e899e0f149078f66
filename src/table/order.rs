//! In which order tables are written: referenced ones before those that reference them.

use std::collections::BTreeMap;

use super::target::Target;

/// Positions of the targets, in families: tables that reference one another in a circle, most often one alone. A family
/// comes after those that it references; by name where foreign keys do not say.
pub(super) fn parents_first(targets: &[Target]) -> Vec<Vec<usize>> {
    let position: BTreeMap<u32, usize> =
        targets.iter().enumerate().map(|(index, target)| (target.table.oid, index)).collect();
    let parents: Vec<Vec<usize>> = targets
        .iter()
        .map(|target| {
            target
                .table
                .foreign_keys
                .iter()
                .filter_map(|key| position.get(&key.references).copied())
                .collect()
        })
        .collect();
    families(&parents)
}

/// Families of the nodes of a graph, those that a family points to before it.
fn families(parents: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let ancestors: Vec<Vec<bool>> = (0..parents.len()).map(|node| reached_from(node, parents)).collect();
    let mut families: Vec<Vec<usize>> = Vec::new();
    let mut placed = vec![false; parents.len()];
    while let Some(next) = (0..parents.len()).find(|node| {
        // All that it points to is placed, or points back to it.
        let waits_for = |other: usize| ancestors[*node][other] && !placed[other] && !ancestors[other][*node];
        !placed[*node] && !(0..parents.len()).any(waits_for)
    }) {
        let together = |other: &usize| *other == next || (ancestors[next][*other] && ancestors[*other][next]);
        let family: Vec<usize> = (0..parents.len()).filter(together).collect();
        family.iter().for_each(|node| placed[*node] = true);
        families.push(family);
    }
    families
}

/// The nodes that a node points to, at first or further hand.
fn reached_from(node: usize, parents: &[Vec<usize>]) -> Vec<bool> {
    let mut reached = vec![false; parents.len()];
    let mut waiting = parents[node].clone();
    while let Some(next) = waiting.pop() {
        if !std::mem::replace(&mut reached[next], true) {
            waiting.extend(&parents[next]);
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_referenced_comes_first_and_circles_are_families() {
        assert_eq!(families(&[vec![1], vec![], vec![0, 1]]), [[1], [0], [2]]);
        // Referencing oneself is no circle.
        assert_eq!(families(&[vec![0], vec![0]]), [[0], [1]]);
        let circle = families(&[vec![3], vec![2], vec![1, 3], vec![]]);
        assert_eq!(circle, [vec![3], vec![0], vec![1, 2]]);
        assert_eq!(families(&[]), [[0; 0]; 0]);
    }
}
