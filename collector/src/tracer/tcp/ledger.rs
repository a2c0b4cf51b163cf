//! What connections have sent and received, whether they live or not, each byte once.
//!
//! A window's growth is that of connections that ended in it, plus what those that live have done so far, minus what those
//! that lived at the end of the last window had done by then. The kernel's two tables are read one after the other, so a
//! connection that ends in between is in neither (they are read in that order, so it is never in both): it then seems to have
//! undone something, which is kept as a debt until the next window shows its end.

use std::collections::{BTreeMap, HashMap};

/// Whose: process and role.
pub type Account = (u32, u16);

/// Bytes sent and received, and segments sent again.
pub type Amounts = [u64; 3];

/// The accounts.
#[derive(Debug, Default)]
pub struct Ledger {
    accounts: HashMap<Account, State>,
}

#[derive(Debug, Default)]
struct State {
    comm: [u8; 16],
    /// Of the connections that lived when they were looked at last.
    living: [i64; 3],
    /// What is still to be told; negative while it is owed.
    pending: [i64; 3],
    /// Windows since something is owed.
    owing: u32,
}

/// Windows after which a debt is forgotten: the end that would pay it was missed.
const MAX_OWING: u32 = 2;

impl Ledger {
    /// Enters a window, and takes out what it brought.
    pub fn enter(
        &mut self,
        ended: impl Iterator<Item = (Account, [u8; 16], Amounts)>,
        living: impl Iterator<Item = (Account, [u8; 16], Amounts)>,
    ) -> BTreeMap<Account, ([u8; 16], Amounts)> {
        self.shift(ended, living);
        let mut told = BTreeMap::new();
        for (account, state) in &mut self.accounts {
            let mut amounts = [0; 3];
            for (amount, pending) in amounts.iter_mut().zip(&mut state.pending) {
                *amount = u64::try_from(*pending).unwrap_or(0);
                *pending = (*pending).min(0);
            }
            if amounts != [0; 3] {
                told.insert(*account, (state.comm, amounts));
            }
            state.owing = if state.pending == [0; 3] { 0 } else { state.owing + 1 };
            if state.owing > MAX_OWING {
                (state.pending, state.owing) = ([0; 3], 0);
            }
        }
        self.accounts.retain(|_, state| state.living != [0; 3] || state.pending != [0; 3]);
        told
    }

    /// Enters what connections that live have done, before the table of connections is emptied: none of them lives on as far
    /// as the ledger knows.
    pub fn close(&mut self, living: impl Iterator<Item = (Account, [u8; 16], Amounts)>) {
        self.shift(std::iter::empty(), living);
        self.accounts.values_mut().for_each(|state| state.living = [0; 3]);
    }

    fn shift(
        &mut self,
        ended: impl Iterator<Item = (Account, [u8; 16], Amounts)>,
        living: impl Iterator<Item = (Account, [u8; 16], Amounts)>,
    ) {
        for state in self.accounts.values_mut() {
            add(&mut state.pending, state.living.map(|n| -n));
            state.living = [0; 3];
        }
        for (account, comm, amounts) in ended {
            let state = self.accounts.entry(account).or_default();
            state.comm = comm;
            add(&mut state.pending, amounts.map(|n| n as i64));
        }
        for (account, comm, amounts) in living {
            let state = self.accounts.entry(account).or_default();
            state.comm = comm;
            add(&mut state.living, amounts.map(|n| n as i64));
            add(&mut state.pending, amounts.map(|n| n as i64));
        }
    }
}

fn add(to: &mut [i64; 3], amounts: [i64; 3]) {
    to.iter_mut().zip(amounts).for_each(|(to, n)| *to = to.saturating_add(n));
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Account = (10, 1);

    fn list(amounts: &[Amounts]) -> impl Iterator<Item = (Account, [u8; 16], Amounts)> + '_ {
        amounts.iter().map(|amounts| (A, [0; 16], *amounts))
    }

    fn enter(ledger: &mut Ledger, ended: &[Amounts], living: &[Amounts]) -> Amounts {
        ledger.enter(list(ended), list(living)).get(&A).map_or([0; 3], |(_, amounts)| *amounts)
    }

    #[test]
    fn growth_is_told_once_while_it_lives_and_when_it_ends() {
        let mut ledger = Ledger::default();
        assert_eq!(enter(&mut ledger, &[], &[[10, 1, 0], [5, 0, 0]]), [15, 1, 0]);
        assert_eq!(enter(&mut ledger, &[], &[[12, 1, 0], [5, 0, 2]]), [2, 0, 2]);
        assert_eq!(enter(&mut ledger, &[[20, 1, 0]], &[[5, 0, 2]]), [8, 0, 0]);
        assert_eq!(enter(&mut ledger, &[[5, 7, 2]], &[]), [0, 7, 0]);
        assert!(ledger.accounts.is_empty());
    }

    #[test]
    fn what_ends_between_the_tables_is_told_a_window_later() {
        let mut ledger = Ledger::default();
        assert_eq!(enter(&mut ledger, &[], &[[10, 0, 0]]), [10, 0, 0]);
        assert_eq!(enter(&mut ledger, &[], &[]), [0, 0, 0]);
        assert_eq!(enter(&mut ledger, &[[25, 0, 0]], &[]), [15, 0, 0]);
        assert!(ledger.accounts.is_empty());
    }

    #[test]
    fn a_debt_that_nobody_pays_is_forgotten() {
        let mut ledger = Ledger::default();
        enter(&mut ledger, &[], &[[10, 0, 0]]);
        for _ in 0..=MAX_OWING {
            assert_eq!(enter(&mut ledger, &[], &[]), [0; 3]);
        }
        assert!(ledger.accounts.is_empty());
        assert_eq!(enter(&mut ledger, &[[3, 0, 0]], &[]), [3, 0, 0]);
    }

    #[test]
    fn a_table_that_begins_anew_owes_nothing() {
        let mut ledger = Ledger::default();
        enter(&mut ledger, &[], &[[10, 0, 0]]);
        ledger.close(list(&[[14, 0, 0]]));
        assert_eq!(enter(&mut ledger, &[], &[[1, 0, 0]]), [5, 0, 0]);
    }
}
