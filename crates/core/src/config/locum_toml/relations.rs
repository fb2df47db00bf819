//! The relations between groups: `after`, `together`, `apart`, `spread`.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};

use super::{
    groups::TomlGroup,
    reader::{Text, TomlReader},
};
use crate::{model::identity::GroupIndex, native::plan::Relation};

/// A relation as written: the group that has the key, the group that it names, and the place.
struct WrittenRelation<'t> {
    by: usize,
    other: usize,
    at: Text<'t>,
}

/// Reads the relations of all groups. Groups that are together get the preferences of the first of them, so that one
/// order decides for all.
pub(super) fn read<'t>(found: &mut [TomlGroup<'t>], reader: &mut TomlReader<'_>) -> Vec<Relation> {
    let after = pairs("after", found, reader);
    let together = pairs("together", found, reader);
    let apart = pairs("apart", found, reader);
    let set_of = sets(found.len(), &together);
    for WrittenRelation { by, other, at } in &apart {
        if set_of[*by] == set_of[*other] {
            let message =
                format!("`{}` and `{}` are together and apart", name(found, *by), name(found, *other));
            reader.error(at, message, "leave one of the two");
        }
    }
    circles(found, &after, reader);
    let mut relations = Vec::new();
    for first in 0..found.len() {
        let set = (first..found.len()).filter(|&group| set_of[group] == first).collect::<Vec<_>>();
        if set_of[first] == first && set.len() > 1 {
            one_order(found, &set, reader);
            relations.push(Relation::Together(set.into_iter().map(GroupIndex).collect()));
        }
    }
    let ordered = |WrittenRelation { by, other, .. }: &WrittenRelation<'_>| {
        (GroupIndex(*by.min(other)), GroupIndex(*by.max(other)))
    };
    let apart_pairs = apart.iter().map(ordered).collect::<BTreeSet<_>>();
    for (said, (a, b)) in apart.iter().map(|said| (said, ordered(said))) {
        let (one, other) = (&found[a.0].group.candidates, &found[b.0].group.candidates);
        if one.len() == 1 && one == other {
            let message = format!(
                "`{}` and `{}` may run only on the same single node",
                name(found, a.0),
                name(found, b.0)
            );
            reader.error(&said.at, message, "give one of them more `nodes`, or do not write `apart`");
        }
    }
    cliques(found, &apart, &set_of, reader);
    relations.extend(apart_pairs.into_iter().map(|(a, b)| Relation::Apart(a, b)));
    let after = after.iter().map(|said| (said.by, said.other)).collect::<BTreeSet<_>>();
    let after = after.into_iter().map(|(group, first)| (GroupIndex(group), GroupIndex(first)));
    relations.extend(after.map(|(group, first)| Relation::After { group, first }));
    relations.extend(spreads(found, reader));
    relations
}

fn name<'a>(found: &'a [TomlGroup<'_>], index: usize) -> &'a str {
    &found[index].group.name
}

fn pairs<'t>(key: &str, found: &[TomlGroup<'t>], reader: &mut TomlReader<'_>) -> Vec<WrittenRelation<'t>> {
    let mut said = Vec::new();
    for (by, it) in found.iter().enumerate() {
        let Some(item) = it.table.get(key) else { continue };
        let names = found.iter().map(|it| it.name.text);
        for (other, at) in reader.choices(item, "group", names) {
            if other == by {
                reader.error(&at, format!("the group is `{key}` itself"), "name another group, or remove it");
                continue;
            }
            reader.explain(&at.span, format!("group {}: {key} {}", it.group.name, name(found, other)));
            said.push(WrittenRelation { by, other, at });
        }
    }
    said
}

/// For each group the smallest group that it is together with, directly or indirectly.
fn sets(groups: usize, together: &[WrittenRelation<'_>]) -> Vec<usize> {
    let mut neighbours = vec![Vec::new(); groups];
    for WrittenRelation { by, other, .. } in together {
        neighbours[*by].push(*other);
        neighbours[*other].push(*by);
    }
    let mut set_of = vec![usize::MAX; groups];
    for first in 0..groups {
        if set_of[first] != usize::MAX {
            continue;
        }
        set_of[first] = first;
        let mut open = vec![first];
        while let Some(group) = open.pop() {
            for &other in &neighbours[group] {
                if set_of[other] == usize::MAX {
                    set_of[other] = first;
                    open.push(other);
                }
            }
        }
    }
    set_of
}

/// Refuses groups that wait for each other in a circle, because they never start. It removes, again and again, each
/// group that waits for none of the rest.
fn circles(found: &[TomlGroup<'_>], after: &[WrittenRelation<'_>], reader: &mut TomlReader<'_>) {
    let mut waits = vec![0_usize; found.len()];
    let mut waiting_for = vec![Vec::new(); found.len()];
    for WrittenRelation { by, other, .. } in after {
        waits[*by] += 1;
        waiting_for[*other].push(*by);
    }
    let mut free = (0..found.len()).filter(|&group| waits[group] == 0).collect::<Vec<_>>();
    while let Some(group) = free.pop() {
        for &other in &waiting_for[group] {
            waits[other] -= 1;
            if waits[other] == 0 {
                free.push(other);
            }
        }
    }
    let Some(said) = after.iter().find(|said| waits[said.by] > 0 && waits[said.other] > 0) else { return };
    // Each remaining group waits for a remaining one. Following them leads into the circle.
    let mut path = vec![said.by];
    loop {
        let last = path[path.len() - 1];
        let next = after.iter().find(|said| said.by == last && waits[said.other] > 0).map(|said| said.other);
        let Some(next) = next else { return };
        if let Some(start) = path.iter().position(|&group| group == next) {
            path.drain(..start);
            path.push(next);
            break;
        }
        path.push(next);
    }
    let circle = path.iter().take(8).map(|&group| name(found, group)).collect::<Vec<_>>().join(" after ");
    let at = after.iter().find(|said| said.by == path[0] && said.other == path[1]).unwrap_or(said);
    reader.error(
        &at.at,
        format!("the groups wait for each other: {circle}"),
        "take one of these `after` away",
    );
}

/// Gives groups that are together one list of candidates: the nodes that all of them allow, in the order of the first
/// that has a preference.
fn one_order(found: &mut [TomlGroup<'_>], set: &[usize], reader: &mut TomlReader<'_>) {
    let allowed = |node: &_| set.iter().all(|&group| found[group].group.candidates.contains(node));
    let leader = set.iter().copied().find(|&group| !found[group].group.prefer.is_empty()).unwrap_or(set[0]);
    let order = found[leader].group.candidates.iter().copied().filter(allowed).collect::<Vec<_>>();
    let prefer = found[leader].group.prefer.iter().copied().filter(allowed).collect::<Vec<_>>();
    if order.is_empty() {
        let names =
            set.iter().map(|&group| format!("`{}`", name(found, group))).collect::<Vec<_>>().join(" and ");
        let at = found[leader].name.clone();
        let cure = "let their `nodes` have one in common";
        reader.error(&at, format!("{names} are together, and no node may run all of them"), cure);
        return;
    }
    for &group in set {
        let own = &found[group].group.prefer;
        if !own.is_empty() && *own != found[leader].group.prefer {
            let message = format!(
                "`{}` is together with `{}`, whose preference counts for both",
                name(found, group),
                name(found, leader)
            );
            let span = found[group].table.get("prefer").map(toml::Spanned::span).unwrap_or_default();
            reader.warning(&span, message, "write the same `prefer` in both, or leave one out");
        }
    }
    for &group in set {
        found[group].group.candidates.clone_from(&order);
        found[group].group.prefer.clone_from(&prefer);
    }
}

/// Warns about groups that are apart and have fewer nodes than groups: some of them never run. Starting from each
/// group, it adds the groups that bring the fewest new nodes. This finds the usual cases, not all possible ones.
fn cliques(
    found: &[TomlGroup<'_>],
    apart: &[WrittenRelation<'_>],
    set_of: &[usize],
    reader: &mut TomlReader<'_>,
) {
    let candidates = |group: usize| &found[group].group.candidates;
    // Groups that are together run on one node and count once: as the first of them.
    let mut apart_from: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for WrittenRelation { by, other, .. } in apart {
        let (one, other) = (set_of[*by], set_of[*other]);
        if one != other && !candidates(one).is_empty() && !candidates(other).is_empty() {
            apart_from.entry(one).or_default().insert(other);
            apart_from.entry(other).or_default().insert(one);
        }
    }
    let mut told = BTreeSet::new();
    for (&first, others) in &apart_from {
        if told.contains(&first) || others.len() < candidates(first).len() {
            continue;
        }
        let mut clique = BTreeSet::from([first]);
        let mut nodes = candidates(first).iter().collect::<BTreeSet<_>>();
        let mut others = others.clone();
        loop {
            let brings = |group: usize| candidates(group).iter().filter(|node| !nodes.contains(node)).count();
            let Some(next) = others.iter().copied().min_by_key(|group| brings(*group)) else { break };
            if clique.len() > nodes.len() && brings(next) > 0 {
                break;
            }
            clique.insert(next);
            nodes.extend(candidates(next));
            others.retain(|group| apart_from[&next].contains(group));
        }
        // Two groups with the same single node are an error of their own.
        if nodes.len() < 2 || clique.len() <= nodes.len() {
            continue;
        }
        let is_one = |group: &usize| clique.contains(&set_of[*group]);
        let Some(said) = apart.iter().find(|said| is_one(&said.by) && is_one(&said.other)) else { continue };
        let names = clique.iter().take(8).map(|&group| format!("`{}`", name(found, group)));
        let message = format!(
            "{} groups must not meet one another and have {} nodes between them, so that some never run: {}",
            clique.len(),
            nodes.len(),
            names.collect::<Vec<_>>().join(", ")
        );
        reader.warning(&said.at.span, message, "give them more `nodes`, or take one of these `apart` away");
        told.extend(clique);
    }
}

fn spreads<'t>(found: &[TomlGroup<'t>], reader: &mut TomlReader<'_>) -> Vec<Relation> {
    let mut spreads: BTreeMap<String, Vec<GroupIndex>> = BTreeMap::new();
    for (index, it) in found.iter().enumerate() {
        let Some(item) = it.table.get("spread") else { continue };
        if let Some(word) = reader.name(item, r#"a word that its groups share, such as `"workers"`"#) {
            spreads.entry(word.text.to_string()).or_default().push(GroupIndex(index));
        }
    }
    spreads.into_iter().map(|(name, groups)| Relation::Spread { name, groups }).collect()
}
