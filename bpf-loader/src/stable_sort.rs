//! A stable sort in little code: the standard library's is compiled anew for each type and key, in 300 to 500 bytes.

/// Sorts by a number; what has the same keeps its order. What is in order is only looked at.
pub fn sort_by_number<T>(items: &mut [T], number: impl Fn(&T) -> u64) {
    for (a, b) in swaps(items.len(), &|at| number(&items[at])) {
        items.swap(a, b);
    }
}

/// The swaps, one after the other, that bring these numbers into order.
fn swaps(len: usize, number: &dyn Fn(usize) -> u64) -> Vec<(usize, usize)> {
    let mut swaps = Vec::new();
    if (0..len).map(number).is_sorted() {
        return swaps;
    }
    // To each place, the number that belongs there, and the place where it is.
    let mut sources: Vec<(u64, usize)> = (0..len).map(|at| (number(at), at)).collect();
    sources.sort_unstable();
    for start in 0..sources.len() {
        let mut place = start;
        loop {
            let source = std::mem::replace(&mut sources[place].1, place);
            if source == start || source == place {
                break;
            }
            swaps.push((place, source));
            place = source;
        }
    }
    swaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_sorts_as_the_standard_library_does() {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state >> 33
        };
        for len in (0..40).chain([1000]) {
            for range in [1, 2, 10, u64::MAX] {
                let mut items: Vec<(u64, usize)> = (0..len).map(|at| (random() % range, at)).collect();
                let mut expected = items.clone();
                expected.sort_by_key(|(number, _)| *number);
                sort_by_number(&mut items, |(number, _)| *number);
                assert_eq!(items, expected);
            }
        }
    }

    #[test]
    fn what_is_in_order_is_not_moved() {
        assert_eq!(swaps(4, &|at| [1, 1, 2, 3][at]), []);
        assert_eq!(swaps(3, &|at| [3, 1, 2][at]), [(0, 1), (1, 2)]);
    }
}
