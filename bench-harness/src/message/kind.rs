//! Which operation comes next.

use crate::scenario::Mix;

/// The operation of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    SubmitSm,
    QuerySm,
    CancelSm,
    ReplaceSm,
    SubmitMulti,
    DataSm,
}

impl Kind {
    /// What to request next, at random by the shares of `mix`. What asks about an earlier message gives way to
    /// submit_sm while there is none.
    pub(super) fn draw(mix: &Mix, has_earlier: bool, random: &mut fastrand::Rng) -> Self {
        let mut drawn = random.f64() * 100.0;
        for (kind, share) in [
            (Self::QuerySm, mix.query_sm),
            (Self::CancelSm, mix.cancel_sm),
            (Self::ReplaceSm, mix.replace_sm),
            (Self::SubmitMulti, mix.submit_multi),
            (Self::DataSm, mix.data_sm),
        ] {
            if drawn < share {
                return if has_earlier || !kind.needs_earlier() { kind } else { Self::SubmitSm };
            }
            drawn -= share;
        }
        Self::SubmitSm
    }

    /// Whether it is about a message that was submitted before.
    const fn needs_earlier(self) -> bool {
        match self {
            Self::QuerySm | Self::CancelSm | Self::ReplaceSm => true,
            Self::SubmitSm | Self::SubmitMulti | Self::DataSm => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_come_by_their_shares() {
        let mix = Mix {
            query_sm: 10.0,
            cancel_sm: 5.0,
            replace_sm: 0.0,
            submit_multi: 1.0,
            data_sm: 20.0,
            ..Mix::default()
        };
        let mut random = fastrand::Rng::with_seed(7);
        let mut share = |kind, has_earlier| {
            let drawn = (0..100_000).filter(|_| Kind::draw(&mix, has_earlier, &mut random) == kind).count();
            drawn as f64 / 1_000.0
        };
        for (kind, with_earlier, without) in [
            (Kind::SubmitSm, 64.0, 79.0),
            (Kind::QuerySm, 10.0, 0.0),
            (Kind::CancelSm, 5.0, 0.0),
            (Kind::ReplaceSm, 0.0, 0.0),
            (Kind::SubmitMulti, 1.0, 1.0),
            (Kind::DataSm, 20.0, 20.0),
        ] {
            for (has_earlier, expected) in [(true, with_earlier), (false, without)] {
                let share = share(kind, has_earlier);
                // Four standard errors of a share of 100,000 are 0.6 at most.
                assert!((share - expected).abs() < 0.65, "{kind:?}: {share} of {expected}");
                assert_eq!(share == 0.0, expected == 0.0, "{kind:?}");
            }
        }
    }

    #[test]
    fn a_full_mix_has_no_submit_sm_but_the_first() {
        let mix = Mix { query_sm: 50.0, cancel_sm: 50.0, ..Mix::default() };
        let mut random = fastrand::Rng::with_seed(7);
        assert!((0..10_000).all(|_| Kind::draw(&mix, true, &mut random) != Kind::SubmitSm));
        assert!((0..10_000).all(|_| Kind::draw(&mix, false, &mut random) == Kind::SubmitSm));
    }
}
