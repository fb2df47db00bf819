//! Shortens the steps of a failing scenario.

/// The shortest list of steps found that still fails. First the tail is cut off, then single steps are left out.
#[must_use]
pub(crate) fn shortened<Step: Clone>(steps: &[Step], fails: impl Fn(&[Step]) -> bool) -> Vec<Step> {
    let mut steps = steps.to_vec();
    if let Some(len) = (1..steps.len()).find(|len| fails(&steps[..*len])) {
        steps.truncate(len);
    }
    let mut at = steps.len();
    while at > 0 {
        at -= 1;
        let mut fewer = steps.clone();
        fewer.remove(at);
        if fails(&fewer) {
            steps = fewer;
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_to_fail_is_left() {
        let fails = |steps: &[u32]| steps.contains(&3) && steps.contains(&7);
        assert_eq!(shortened(&[1, 3, 2, 7, 9, 3], fails), [3, 7]);
    }
}
