//! The kinds of faults that are brought about on purpose. How messages fare is not among them: each of them is delayed,
//! lost or duplicated on its own.

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The power of one pod goes off: whatever its disks had not synced may be lost, sector by sector.
    PowerFailure,
    /// The power of all pods goes off within a moment.
    PowerFailureOfAll,
    /// A node's process is killed; its operating system goes on.
    NodeKill,
    /// A replicator's process is killed, and may stay away for long.
    ReplicatorKill,
    /// A pod fails again and again, soon after each start.
    CrashLoop,
    /// The network is cut in two, around one pod, or in one direction.
    Partition,
    /// A stream between two nodes breaks: what was on its way in either direction is lost.
    LinkBreak,
    /// A pod does nothing for a while; its clock goes on.
    Suspension,
    /// A pod's clock jumps ahead.
    ClockJump,
    /// A pod's clock changes its rate.
    ClockDrift,
    /// A disk completes nothing for a while.
    DiskStall,
    /// A disk has no room left for a while.
    DiskFull,
    /// A write or its sync fails.
    WriteError,
    /// Bytes of a disk rot while its process is away. Of nodes only a minority is hit, ever.
    Rot,
    /// A disk is lost. Of nodes only a minority is hit, ever.
    Wipe,
    /// An executor takes long for everything.
    SlowExecutor,
    /// Somebody asks for a transfer of leadership.
    Transfer,
    /// Whoever has just begun to lead is cut off or loses its power, and others along with it.
    FreshLeader,
    /// An operator changes who belongs to the cluster.
    Membership,
    /// The log of a node is gone, its identity is not. Only a minority is hit, ever.
    LogLoss,
    /// The log of a node says something else than was written, and all checksums are right. Only a minority is hit, ever.
    Forgery,
    /// A node is restarted as another version; with this fault there are two of them from the beginning.
    Upgrade,
    /// The leader is made to lose its followers step by step, and hears of it late.
    Ambush,
    /// A program that executes operations and keeps a state is killed.
    MachineKill,
    /// And loses its state.
    MachineWipe,
}

impl Fault {
    /// All kinds.
    pub const ALL: &[Self] = &[
        Self::PowerFailure,
        Self::PowerFailureOfAll,
        Self::NodeKill,
        Self::ReplicatorKill,
        Self::CrashLoop,
        Self::Partition,
        Self::LinkBreak,
        Self::Suspension,
        Self::ClockJump,
        Self::ClockDrift,
        Self::DiskStall,
        Self::DiskFull,
        Self::WriteError,
        Self::Rot,
        Self::Wipe,
        Self::SlowExecutor,
        Self::Transfer,
        Self::FreshLeader,
        Self::Membership,
        Self::LogLoss,
        Self::Forgery,
        Self::Upgrade,
        Self::Ambush,
        Self::MachineKill,
        Self::MachineWipe,
    ];

    /// As options name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::PowerFailure => "power",
            Self::PowerFailureOfAll => "power-of-all",
            Self::NodeKill => "node-kill",
            Self::ReplicatorKill => "replicator-kill",
            Self::CrashLoop => "crash-loop",
            Self::Partition => "partition",
            Self::LinkBreak => "link-break",
            Self::Suspension => "suspension",
            Self::ClockJump => "clock-jump",
            Self::ClockDrift => "clock-drift",
            Self::DiskStall => "disk-stall",
            Self::DiskFull => "disk-full",
            Self::WriteError => "write-error",
            Self::Rot => "rot",
            Self::Wipe => "wipe",
            Self::SlowExecutor => "slow-executor",
            Self::Transfer => "transfer",
            Self::FreshLeader => "fresh-leader",
            Self::Membership => "membership",
            Self::LogLoss => "log-loss",
            Self::Forgery => "forgery",
            Self::Upgrade => "upgrade",
            Self::Ambush => "ambush",
            Self::MachineKill => "machine-kill",
            Self::MachineWipe => "machine-wipe",
        }
    }

    /// Some would leave no time for anything else if they came as often as others.
    pub(crate) fn rarity(self) -> u32 {
        match self {
            Self::PowerFailureOfAll | Self::CrashLoop | Self::Wipe | Self::LogLoss | Self::DiskFull => 4,
            _ => 1,
        }
    }
}
