//! The operations of the model test: small enough to be drawn from bytes, so
//! that a generator of random numbers and a fuzzer can both write programs.
//!
//! The rule that must hold: **the same bytes are the same program**, and any
//! bytes are one. Operands are taken modulo what there is when they are used.

/// What an object, a finalizer or a callback does when its time comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    Quiet,
    Panic,
    Resurrect,
    Store,
    Steal,
    Unlink,
    Allocate,
    MakeWeak,
    DropRoot,
    Upgrade,
    Slice,
    Collect,
    Trim,
    Freeze,
    CloseHeap,
}

const HABITS: [Habit; 20] = [
    Habit::Quiet,
    Habit::Quiet,
    Habit::Quiet,
    Habit::Quiet,
    Habit::Quiet,
    Habit::Quiet,
    Habit::Panic,
    Habit::Resurrect,
    Habit::Store,
    Habit::Steal,
    Habit::Unlink,
    Habit::Allocate,
    Habit::MakeWeak,
    Habit::DropRoot,
    Habit::Upgrade,
    Habit::Slice,
    Habit::Collect,
    Habit::Trim,
    Habit::Freeze,
    Habit::CloseHeap,
];

/// The types of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// May be in cycles.
    Plain,
    /// May be in cycles, with a finalizer.
    Last,
    /// Cannot be in cycles, with a finalizer.
    Flat,
    /// Cannot be in cycles; three fill a slab. Has external bytes.
    Bulky,
}

/// A place: a root, and a way to go from there.
pub(super) type At = (u8, u8);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Alloc(Kind, u8, Habit, Habit),
    Chain(u8),
    CloneRoot(At),
    DropRoot(u8),
    DropRoots(u8),
    Link(At, At),
    TakeLink(At),
    ClearLink(At),
    MoveLink(At, At),
    Push(At, At),
    MovePush(At, u8),
    Pop(At),
    ClearMany(At),
    SwapMany(At, At),
    Downgrade(At),
    Upgrade(u8),
    CloneWeak(u8),
    DropWeak(u8),
    Watch(u8, Habit),
    StoreWatch(At, u8, Habit),
    DropWatch(u8),
    Collect(u8),
    Start,
    Units(u8),
    Slice,
    SafePoint,
    Drain,
    Freeze,
    Unfreeze,
    Trim(bool),
    Limit(u8),
    BatchStart,
    BatchEnd,
    Unit,
    UnitsEnd,
    Trace(bool),
    Thresholds(u8),
    Callback(u8),
    Look(At),
    Lend(At, u8),
    Read(At, u8),
    Census,
    Verify,
    FullCheck,
}

impl Op {
    /// The next operation of a program; none at its end.
    pub(super) fn decode(bytes: &mut impl Iterator<Item = u8>) -> Option<Self> {
        let code = bytes.next()?;
        let mut next = || bytes.next().unwrap_or(0);
        Some(match code {
            0..26 => Self::Alloc(Kind::Plain, next(), habit(next()), Habit::Quiet),
            26..46 => Self::Alloc(Kind::Last, next(), habit(next()), habit(next())),
            46..52 => Self::Alloc(Kind::Flat, next(), habit(next()), habit(next())),
            52..56 => Self::Alloc(Kind::Bulky, next(), habit(next()), Habit::Quiet),
            56..57 => Self::Chain(next()),
            57..63 => Self::CloneRoot((next(), next())),
            63..85 => Self::DropRoot(next()),
            85..87 => Self::DropRoots(next()),
            87..107 => Self::Link((next(), next()), (next(), next())),
            107..113 => Self::TakeLink((next(), next())),
            113..119 => Self::ClearLink((next(), next())),
            119..122 => Self::MoveLink((next(), next()), (next(), next())),
            122..138 => Self::Push((next(), next()), (next(), next())),
            138..142 => Self::MovePush((next(), next()), next()),
            142..148 => Self::Pop((next(), next())),
            148..150 => Self::ClearMany((next(), next())),
            150..152 => Self::SwapMany((next(), next()), (next(), next())),
            152..158 => Self::Downgrade((next(), next())),
            158..163 => Self::Upgrade(next()),
            163..164 => Self::CloneWeak(next()),
            164..166 => Self::DropWeak(next()),
            166..169 => Self::Watch(next(), habit(next())),
            169..172 => Self::StoreWatch((next(), next()), next(), habit(next())),
            172..173 => Self::DropWatch(next()),
            173..177 => Self::Collect(next()),
            177..185 => Self::Start,
            185..219 => Self::Units(next()),
            219..222 => Self::Slice,
            222..224 => Self::SafePoint,
            224..226 => Self::Drain,
            226..227 => Self::Freeze,
            227..229 => Self::Unfreeze,
            229..231 => Self::Trim(next() & 1 == 1),
            231..233 => Self::Limit(next()),
            233..234 => Self::BatchStart,
            234..235 => Self::BatchEnd,
            235..237 => Self::Unit,
            237..238 => Self::UnitsEnd,
            238..239 => Self::Trace(next() & 1 == 1),
            239..240 => Self::Thresholds(next()),
            240..241 => Self::Callback(next()),
            241..243 => Self::Look((next(), next())),
            243..246 => Self::Lend((next(), next()), next()),
            246..248 => Self::Read((next(), next()), next()),
            248..250 => Self::Census,
            250..254 => Self::Verify,
            254..=255 => Self::FullCheck,
        })
    }
}

fn habit(byte: u8) -> Habit {
    HABITS[usize::from(byte) % HABITS.len()]
}
