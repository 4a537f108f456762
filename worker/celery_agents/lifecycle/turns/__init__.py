"""Whose turn it is: order within a session, how many executions of an agent work at once, how often they start.

There are no locks. A claim is atomic, and from then on everybody sees it. So an execution first claims, and then looks
who else works (`line.Line.obstacle`). If it is not its turn, it steps back (`gate.enter`): before the agent's function
is called, it pauses under the key `agents.turn`, which gives back the lease and the slot.

**Never more than N work at once.** Suppose that N + 1 executions passed the gate and work at one moment, each with a
live lease. Each claimed before it looked. The last of them to look did so when all the others had claimed. As they
still work now, their leases lived and their states said so all the while it looked. It saw N others and stepped back: a
contradiction. The same holds for a session, with N = 1, whose older executions may not even be paused. A crashed holder
counts until its lease runs out, which is when its own recovery begins. A holder that is frozen for longer stops at its
next write. Between the two moments its successor may work beside it, as after any death.

**Somebody always goes on.** Several that claim at one moment may all see each other and step back. An execution that
gives up its place, by stepping back, a pause or an end, looks afterwards how many work. If there are free places, it
wakes as many of those who wait, the oldest first (`line.Line.pass_on`). The last of those who stepped back finds all
the others paused, so it wakes the oldest. If a wake comes while its receiver is on the way to pause, that very write
finds it in the mailbox, and rings at once. A wake is a signal whose id is made of the pause, so that several enders
wake one execution once, and never all of a long line. A timer catches what no argument covers (a worker that dies
between its last write and the wake, an execution that is deleted): each execution looks by itself after a minute, then
after two, and so on up to a quarter of an hour, with jitter.

Relatives do not wait for each other, because a parent waits for its children already. A child takes the place of its
oldest ancestor in the session.

The order of a session is strict. Executions that wait for a free place are ordered by creation, with one exception: a
newcomer that claims between an end and the claim of the execution that was woken may be first. The woken execution
stays in front.
"""
