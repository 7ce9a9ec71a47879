//! Where a new partition goes.

use std::cmp::{Ordering, Reverse};

/// Spreads new partitions over the data directories, in proportion to the space that is free. On the cluster core.
#[derive(Debug, Default)]
pub struct Placer {
    loads: Vec<Load>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Load {
    /// Placed by this process: space that is spoken for, though little of it may be used yet.
    placed: u64,
    /// All that are there.
    partitions: u64,
}

impl Placer {
    /// For directories with so many partitions each.
    pub fn new(partitions: impl IntoIterator<Item = u64>) -> Placer {
        Placer { loads: partitions.into_iter().map(|partitions| Load { placed: 0, partitions }).collect() }
    }

    /// The directory for one more partition; `free` is the space in each, none where there is no placing anything.
    ///
    /// The most free space for each partition placed wins, the new one counted: so many partitions made at once are
    /// spread as the space is. Of equal ones that with the fewest partitions.
    pub fn choose(&mut self, free: &[Option<u64>]) -> Option<usize> {
        assert_eq!(free.len(), self.loads.len(), "one figure for each directory");
        let candidates = free.iter().enumerate().filter_map(|(at, free)| Some((at, (*free)?)));
        let chosen = candidates.max_by(|(a, free_a), (b, free_b)| {
            let (one, other) = (self.loads[*a], self.loads[*b]);
            // free_a / (placed_a + 1) against free_b / (placed_b + 1)
            let share = |free: u64, placed: u64| u128::from(free) * u128::from(placed + 1);
            let by_space: Ordering = share(*free_a, other.placed).cmp(&share(*free_b, one.placed));
            by_space.then(Reverse(one.partitions).cmp(&Reverse(other.partitions))).then(b.cmp(a))
        });
        let (at, _) = chosen?;
        self.loads[at].placed += 1;
        self.loads[at].partitions += 1;
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn spread(placer: &mut Placer, free: &[Option<u64>], count: usize) -> Vec<usize> {
        let mut got = vec![0; free.len()];
        (0..count).for_each(|_| got[placer.choose(free).expect("one is free")] += 1);
        got
    }

    #[test]
    fn partitions_made_at_once_are_spread_as_the_space_is() {
        let free = [Some(300 * GIB), Some(100 * GIB), None];
        let mut placer = Placer::new([0, 0, 0]);
        assert_eq!(placer.choose(&free), Some(0), "the first goes where most is free");
        assert_eq!(spread(&mut placer, &free, 99), [74, 25, 0]);
    }

    #[test]
    fn of_equal_directories_that_with_the_fewest_partitions_is_taken() {
        let equal = [Some(GIB); 3];
        assert_eq!(Placer::new([5, 2, 9]).choose(&equal), Some(1));
        assert_eq!(spread(&mut Placer::new([0, 0, 0]), &equal, 100), [34, 33, 33]);
        let full = [Some(0); 2];
        assert_eq!(spread(&mut Placer::new([4, 0]), &full, 10), [3, 7]);
        assert_eq!(Placer::new([0, 0]).choose(&[None, None]), None);
    }
}
