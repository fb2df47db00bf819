//! Where groups belong: the same answer on every node that sees the same. Every node ranks the nodes that may run a
//! group. The first one claims at once, each further one a step later, so that two seldom claim together. A wrong
//! answer costs time, never safety: the voters decide who owns a group.

use alloc::{collections::BTreeSet, sync::Arc, vec, vec::Vec};

use super::plan::{NativePlan, Relation};
use crate::model::identity::{GroupIndex, NodeIndex};

/// What the ranking depends on, as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scene {
    /// By node: whether it lives and may run groups.
    pub available: Vec<bool>,
    /// By group: its owner.
    pub owners: Vec<Option<NodeIndex>>,
    /// Groups that could not run on a node. They are not tried there again before a person asks or time has passed.
    pub unable: BTreeSet<(NodeIndex, GroupIndex)>,
    /// Groups that clients could not reach on a node: that node is ranked last.
    pub unreachable: BTreeSet<(NodeIndex, GroupIndex)>,
}

impl Scene {
    fn may_run(&self, node: NodeIndex, group: GroupIndex) -> bool {
        self.available[node.0] && !self.unable.contains(&(node, group))
    }
}

/// The ranking of the nodes for one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rank {
    /// The nodes that should claim the group, best first. An owned group has the ranking that it would have if it were
    /// free; whether it should move is another question.
    pub nodes: Vec<NodeIndex>,
    /// The group is owned, but must not be on that node, because of a group that stands before it in the file. This
    /// happens after nodes did not hear each other. Its ranking disregards the groups after it: they follow.
    pub is_misplaced: bool,
}

/// Ranks the nodes for each group.
///
/// Groups are ranked in the order of the plan. A free group counts as if it were on its first candidate. So groups that
/// must not meet, or want to be spread, part although none of them is owned yet.
#[must_use]
pub fn rank(plan: &NativePlan, scene: &Scene) -> Vec<Rank> {
    let mut places = scene.owners.clone();
    let mut ranks = vec![Rank::default(); plan.groups.len()];
    let relations = related(plan);
    for index in 0..plan.groups.len() {
        let group = GroupIndex(index);
        let own = places[index].take();
        let earlier = &places[..index];
        let is_misplaced = own.is_some_and(|node| !may_be(&relations, scene, earlier, group, node));
        // Family members on the same node would follow the group, so they do not keep it anywhere.
        let followers: Vec<GroupIndex> = match own {
            Some(_) => {
                family(&relations, &group).iter().copied().filter(|g| place(&places, *g) == own).collect()
            }
            None => Vec::new(),
        };
        followers.iter().for_each(|follower| places[follower.0] = None);
        let seen = if is_misplaced { &places[..index] } else { &places };
        let nodes = rank_one(plan, &relations, scene, seen, group);
        followers.iter().for_each(|follower| places[follower.0] = own);
        places[index] = own.filter(|_| !is_misplaced).or_else(|| nodes.first().copied()).or(own);
        ranks[index] = Rank { nodes, is_misplaced };
    }
    ranks
}

/// The relations of each group.
fn related(plan: &NativePlan) -> Vec<Vec<&Relation>> {
    let mut related = vec![Vec::new(); plan.groups.len()];
    for relation in &plan.relations {
        let groups: &[GroupIndex] = match relation {
            Relation::Together(groups) | Relation::Spread { groups, .. } => groups,
            Relation::Apart(one, other) => &[*one, *other],
            Relation::After { .. } => &[],
        };
        groups.iter().for_each(|group| related[group.0].push(relation));
    }
    related
}

/// The group that this one still has to wait for, because it comes after it and `runs` says that it does not run.
#[must_use]
pub fn waits_for(
    plan: &NativePlan,
    group: GroupIndex,
    runs: impl Fn(GroupIndex) -> bool,
) -> Option<GroupIndex> {
    plan.relations.iter().find_map(|relation| match relation {
        Relation::After { group: waiting, first } if *waiting == group && !runs(*first) => Some(*first),
        _ => None,
    })
}

fn rank_one(
    plan: &NativePlan,
    relations: &[Vec<&Relation>],
    scene: &Scene,
    places: &[Option<NodeIndex>],
    group: GroupIndex,
) -> Vec<NodeIndex> {
    let family = family(relations, &group);
    // A whole family follows the preferences of its first group.
    let wishes = &plan.groups[family[0].0];
    let fits = |node: NodeIndex| {
        let may_run = |member: &GroupIndex| {
            plan.groups[member.0].candidates.contains(&node) && scene.may_run(node, *member)
        };
        family.iter().all(may_run) && may_be(relations, scene, places, group, node)
    };
    let mut ranking: Vec<NodeIndex> = wishes.candidates.iter().copied().filter(|node| fits(*node)).collect();
    // A preferred node counts more than an even spread. Among the others the emptier one is better. The sort is stable.
    ranking.sort_by_key(|node| {
        let is_cut = family.iter().any(|member| scene.unreachable.contains(&(*node, *member)));
        match wishes.prefer.contains(node) {
            true => (is_cut, false, 0),
            false => (is_cut, true, crowd(&relations[group.0], places, group, *node)),
        }
    });
    ranking
}

/// By group: its family, itself included, in order.
#[must_use]
pub fn families(plan: &NativePlan) -> Vec<Arc<[GroupIndex]>> {
    let mut families: Vec<Arc<[GroupIndex]>> =
        (0..plan.groups.len()).map(|group| [GroupIndex(group)].into()).collect();
    for relation in &plan.relations {
        if let Some(groups) = relation.family() {
            let family: Arc<[GroupIndex]> = groups.into();
            groups.iter().for_each(|group| families[group.0] = Arc::clone(&family));
        }
    }
    families
}

/// By group: those to look at when its place, or what runs of it, changes; itself included.
#[must_use]
pub fn relatives(plan: &NativePlan) -> Vec<Arc<[GroupIndex]>> {
    let families = families(plan);
    let mut relatives: Vec<BTreeSet<GroupIndex>> =
        families.iter().map(|family| family.iter().copied().collect()).collect();
    for relation in &plan.relations {
        match relation {
            // If a whole family or spread has changed, the ranking has changed, and then all groups are looked at.
            Relation::Spread { .. } | Relation::Together(_) => {}
            Relation::After { group, first } => {
                let waiting = families[group.0].iter().copied();
                families[first.0].iter().for_each(|member| relatives[member.0].extend(waiting.clone()));
            }
            Relation::Apart(one, other) => {
                for (of, rest) in [(one, other), (other, one)] {
                    let rest = families[rest.0].iter().copied();
                    families[of.0].iter().for_each(|member| relatives[member.0].extend(rest.clone()));
                }
            }
        }
    }
    relatives.into_iter().map(|relatives| relatives.into_iter().collect()).collect()
}

/// By group: whether the ranking of any group depends on its place.
#[must_use]
pub fn are_related(plan: &NativePlan) -> Vec<bool> {
    related(plan).into_iter().map(|relations| !relations.is_empty()).collect()
}

/// The group's family, itself included.
fn family<'a>(relations: &[Vec<&'a Relation>], group: &'a GroupIndex) -> &'a [GroupIndex] {
    relations[group.0].iter().find_map(|relation| relation.family()).unwrap_or(core::slice::from_ref(group))
}

/// Whether the places of other groups let the group be on that node. A group beyond the end of `places` is nowhere.
fn may_be(
    relations: &[Vec<&Relation>],
    scene: &Scene,
    places: &[Option<NodeIndex>],
    group: GroupIndex,
    node: NodeIndex,
) -> bool {
    family(relations, &group).iter().all(|member| {
        let with_it = place(places, *member).is_none_or(|place| place == node || !scene.available[place.0]);
        with_it && !is_kept_away(relations, places, *member, node)
    })
}

fn place(places: &[Option<NodeIndex>], group: GroupIndex) -> Option<NodeIndex> {
    places.get(group.0).copied().flatten()
}

/// The groups that must not be on the node of this group's family. Their families are included, because they will be on
/// the same node as them.
pub fn kept_away(plan: &NativePlan, families: &[Arc<[GroupIndex]>], group: GroupIndex) -> Vec<GroupIndex> {
    let family = &families[group.0];
    let others = plan.relations.iter().filter_map(|relation| match relation {
        Relation::Apart(one, other) if family.contains(one) => Some(other),
        Relation::Apart(one, other) if family.contains(other) => Some(one),
        _ => None,
    });
    others.flat_map(|other| families[other.0].iter().copied()).collect()
}

/// Whether that node has a group that must not meet this one, or a member of such a group's family: the rest of a
/// family is to follow its first group.
fn is_kept_away(
    relations: &[Vec<&Relation>],
    places: &[Option<NodeIndex>],
    group: GroupIndex,
    node: NodeIndex,
) -> bool {
    let is_there = |other: &GroupIndex| {
        family(relations, other).iter().any(|member| place(places, *member) == Some(node))
    };
    relations[group.0].iter().any(|relation| match relation {
        Relation::Apart(one, other) if *one == group => is_there(other),
        Relation::Apart(other, _) => is_there(other),
        _ => false,
    })
}

/// How many groups that want to be spread with this one are on that node.
fn crowd(relations: &[&Relation], places: &[Option<NodeIndex>], group: GroupIndex, node: NodeIndex) -> usize {
    let spreads = relations.iter().filter_map(|relation| match relation {
        Relation::Spread { groups, .. } => Some(groups),
        _ => None,
    });
    spreads.flatten().filter(|other| **other != group && place(places, **other) == Some(node)).count()
}
