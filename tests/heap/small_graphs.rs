//! All small graphs, and all ways in which a program can interfere with an
//! incremental collection of them.
//!
//! A case is a graph, the nodes that the program holds, the way in which edges
//! are stored, and a schedule: after so many units of work of the collection
//! the program makes a move, and goes on. Graphs have self loops; of those that
//! differ only in the names of their nodes one is taken. Moves are: to drop a
//! handle, to clone one, to take an edge out of a node, to move an edge to
//! another node, to link two nodes, to upgrade a weak reference. Nodes that the
//! program has no handle to are gone to as it can: through borrowed cells,
//! which tells the collector nothing, or through links, which clones handles.
//!
//! Within these bounds all cases are tried:
//! * 1 and 2 nodes, all sets of held nodes, up to 3 moves, all ways of storing;
//! * 3 nodes, all sets of held nodes, up to 1 move, all ways of storing;
//! * 3 nodes, at most one of them held, up to 2 moves, edges in cells;
//! * 4 nodes without self loops, at most one of them held, up to 1 move, edges
//!   in cells.
//!
//! With `HEAP_GRAPHS=all` in the environment also, in a minute or two:
//! * 3 nodes, all sets of held nodes, up to 2 moves, edges in cells;
//! * 4 nodes with self loops, at most one of them held, up to 1 move, edges in
//!   cells.
//!
//! The rules that must hold in each: what can be reached is not dropped, and is
//! what it was; what could not be reached when the collection started is dropped
//! when it is over, if the program did not get hold of it; one collection more
//! leaves nothing unreachable.

use std::cell::Cell;
use std::rc::Rc;

use filed::heap::{Gc, GcCell, Generation, Heap, Link, Weak, leaf, traced};

const MOST_NODES: usize = 4;
/// More than any collection here takes.
const MOST_UNITS: u32 = 200;
const CANARY: u64 = 0x0123_4567_89ab_cdef;

/// Sets the bit of its node when that is dropped.
struct Grave {
    id: usize,
    dropped: Rc<Cell<u8>>,
}
leaf!(Grave);

impl Drop for Grave {
    fn drop(&mut self) {
        assert_eq!(self.dropped.get() >> self.id & 1, 0, "dropped twice");
        self.dropped.set(self.dropped.get() | 1 << self.id);
    }
}

traced! {
    struct Node {
        canary: u64,
        grave: Grave,
        links: [Link<Node>; MOST_NODES],
        cell: GcCell<[Option<Gc<Node>>; MOST_NODES]>,
    }
}

/// How edges are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Links,
    Cells,
    /// In cells, and each node has a weak reference.
    Weaks,
}

const ALL_STYLES: [Style; 3] = [Style::Links, Style::Cells, Style::Weaks];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    Drop(usize),
    Clone(usize),
    Take(usize, usize),
    /// Takes the edge from the first to the second to the third.
    Pass(usize, usize, usize),
    Put(usize, usize),
    Upgrade(usize),
}

/// The graph as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Graph {
    nodes: usize,
    /// By node: a bit for each node that it holds.
    edges: [u8; MOST_NODES],
    /// By node: handles that the program holds.
    held: [u8; MOST_NODES],
}

impl Graph {
    fn reached(&self) -> u8 {
        let mut reached =
            (0..self.nodes).fold(0, |all, id| all | u8::from(self.held[id] > 0) << id);
        loop {
            let next = (0..self.nodes)
                .filter(|id| reached >> id & 1 == 1)
                .fold(reached, |all, id| all | self.edges[id]);
            if next == reached {
                return reached;
            }
            reached = next;
        }
    }

    fn has(&self, from: usize, to: usize) -> bool {
        self.edges[from] >> to & 1 == 1
    }

    fn count(&self, id: usize) -> u32 {
        let edges = (0..self.nodes).filter(|&from| self.has(from, id)).count();
        u32::from(self.held[id]) + edges as u32
    }

    /// What the program can do. To upgrade is always possible, whatever comes of it.
    fn moves(&self, style: Style) -> Vec<Move> {
        let reached = self.reached();
        let all = 0..self.nodes;
        let there: Vec<usize> = all.clone().filter(|id| reached >> id & 1 == 1).collect();
        let mut moves = Vec::new();
        for &from in &there {
            if self.held[from] > 0 {
                moves.push(Move::Drop(from));
            }
            moves.push(Move::Clone(from));
            for &to in &there {
                if !self.has(from, to) {
                    moves.push(Move::Put(from, to));
                    continue;
                }
                moves.push(Move::Take(from, to));
                let mut without = *self;
                without.edges[from] &= !(1 << to);
                let left = without.reached();
                for &other in &there {
                    if other != from && !self.has(other, to) && left >> other & 1 == 1 {
                        moves.push(Move::Pass(from, to, other));
                    }
                }
            }
        }
        if style == Style::Weaks {
            moves.extend(all.map(Move::Upgrade));
        }
        moves
    }

    fn apply(&mut self, of: Move) {
        match of {
            Move::Drop(id) => self.held[id] -= 1,
            Move::Clone(id) | Move::Upgrade(id) => self.held[id] += 1,
            Move::Take(from, to) => {
                self.edges[from] &= !(1 << to);
                self.held[to] += 1;
            }
            Move::Pass(from, to, other) => {
                self.edges[from] &= !(1 << to);
                self.edges[other] |= 1 << to;
            }
            Move::Put(from, to) => self.edges[from] |= 1 << to,
        }
    }

    /// A way from a held node to this one, shortest first.
    fn way(&self, to: usize) -> Vec<usize> {
        let mut ways: Vec<Vec<usize>> = (0..self.nodes)
            .filter(|&id| self.held[id] > 0)
            .map(|id| vec![id])
            .collect();
        for at in 0.. {
            let way = ways[at].clone();
            let last = way[way.len() - 1];
            if last == to {
                return way;
            }
            for next in (0..self.nodes).filter(|&next| self.has(last, next)) {
                if !way.contains(&next) {
                    ways.push([&way[..], &[next]].concat());
                }
            }
        }
        unreachable!("only nodes that can be reached are gone to")
    }
}

/// A graph on a heap.
struct Real {
    style: Style,
    held: [Vec<Gc<Node>>; MOST_NODES],
    weaks: Vec<Weak<Node>>,
    dropped: Rc<Cell<u8>>,
}

impl Real {
    fn build(heap: &Heap, graph: &Graph, style: Style) -> Self {
        let dropped = Rc::new(Cell::new(0));
        let nodes: Vec<Gc<Node>> = (0..graph.nodes)
            .map(|id| {
                let dropped = Rc::clone(&dropped);
                let node = Node {
                    canary: CANARY ^ id as u64,
                    grave: Grave { id, dropped },
                    links: Default::default(),
                    cell: GcCell::default(),
                };
                heap.alloc(node).expect("no limit is set")
            })
            .collect();
        for from in 0..graph.nodes {
            for to in (0..graph.nodes).filter(|&to| graph.has(from, to)) {
                put(&nodes[from], style, to, nodes[to].clone());
            }
        }
        let mut real = Self {
            style,
            held: Default::default(),
            weaks: Vec::new(),
            dropped,
        };
        if style == Style::Weaks {
            real.weaks = nodes.iter().map(Gc::downgrade).collect();
        }
        for (id, node) in nodes.into_iter().enumerate() {
            if graph.held[id] > 0 {
                real.held[id].push(node);
            }
        }
        real
    }

    /// Does something with a node that can be reached.
    fn visit<R>(&self, graph: &Graph, id: usize, run: impl FnOnce(&Gc<Node>) -> R) -> R {
        fn walk<R>(
            node: &Gc<Node>,
            style: Style,
            way: &[usize],
            run: impl FnOnce(&Gc<Node>) -> R,
        ) -> R {
            let Some((&next, way)) = way.split_first() else {
                return run(node);
            };
            if style == Style::Links {
                let next = node.links[next].get().expect("the edge is there");
                return walk(&next, style, way, run);
            }
            let cell = node.cell.borrow();
            walk(
                cell[next].as_ref().expect("the edge is there"),
                style,
                way,
                run,
            )
        }
        let way = graph.way(id);
        walk(&self.held[way[0]][0], self.style, &way[1..], run)
    }

    /// Makes a move; false if it came to nothing.
    fn make(&mut self, graph: &Graph, of: Move) -> bool {
        let style = self.style;
        match of {
            Move::Drop(id) => drop(self.held[id].pop()),
            Move::Clone(id) => {
                let node = self.visit(graph, id, Gc::clone);
                self.held[id].push(node);
            }
            Move::Take(from, to) => {
                let node = self.visit(graph, from, |node| take(node, style, to));
                self.held[to].push(node);
            }
            Move::Pass(from, to, other) => {
                let node = self.visit(graph, from, |node| take(node, style, to));
                let mut without = *graph;
                without.edges[from] &= !(1 << to);
                self.visit(&without, other, |other| put(other, style, to, node));
            }
            Move::Put(from, to) => {
                let node = self.visit(graph, to, Gc::clone);
                self.visit(graph, from, |from| put(from, style, to, node));
            }
            Move::Upgrade(id) => match self.weaks[id].upgrade() {
                Some(node) => self.held[id].push(node),
                None => {
                    assert_eq!(graph.reached() >> id & 1, 0, "a weak reference is dead");
                    return false;
                }
            },
        }
        true
    }

    /// All that can be reached is what it was.
    fn check(&self, graph: &Graph) {
        for id in (0..graph.nodes).filter(|id| graph.reached() >> id & 1 == 1) {
            self.visit(graph, id, |node| {
                assert_eq!((node.canary, node.grave.id), (CANARY ^ id as u64, id));
                let edges = (0..graph.nodes).filter(|&to| match self.style {
                    Style::Links => !node.links[to].is_none(),
                    Style::Cells | Style::Weaks => node.cell.borrow()[to].is_some(),
                });
                let edges = edges.fold(0, |all, to| all | 1 << to);
                assert_eq!(edges, graph.edges[id], "edges of node {id}");
                // A walk through links has a handle of its own.
                let own = u32::from(self.style == Style::Links && graph.way(id).len() > 1);
                if graph.unreached_hold_nothing(id) {
                    assert_eq!(
                        Gc::count(node),
                        graph.count(id) + own,
                        "handles of node {id}"
                    );
                }
            });
        }
    }
}

impl Graph {
    /// Whether no garbage, which may be gone or not, holds this node.
    fn unreached_hold_nothing(&self, id: usize) -> bool {
        let reached = self.reached();
        (0..self.nodes).all(|from| reached >> from & 1 == 1 || !self.has(from, id))
    }
}

fn put(node: &Gc<Node>, style: Style, to: usize, held: Gc<Node>) {
    match style {
        Style::Links => node.links[to].set(Some(held)),
        Style::Cells | Style::Weaks => node.cell.borrow_mut()[to] = Some(held),
    }
}

fn take(node: &Gc<Node>, style: Style, to: usize) -> Gc<Node> {
    let taken = match style {
        Style::Links => node.links[to].take(),
        Style::Cells | Style::Weaks => node.cell.borrow_mut()[to].take(),
    };
    taken.expect("the edge is there")
}

/// Runs a schedule, and the collection to its end in slices of `step`; how many units those were,
/// and the graph then.
/// None if there is no such case: a node is gone before the collection starts.
fn run(
    heap: &Heap,
    start: &Graph,
    style: Style,
    schedule: &[(u32, Move)],
    step: u32,
) -> Option<(u32, Graph)> {
    let mut graph = *start;
    let mut real = Real::build(heap, &graph, style);
    let garbage = !start.reached() & ((1 << start.nodes) - 1);
    let exists = real.dropped.get() == 0;
    let mut units = 0;
    if exists {
        heap.start_collection();
        let mut saved = 0;
        for &(units, of) in schedule {
            if units > 0 {
                heap.collect_units(units);
            }
            if real.make(&graph, of) {
                let before = graph.reached();
                graph.apply(of);
                saved |= graph.reached() & !before;
            }
            assert_eq!(
                real.dropped.get() & graph.reached(),
                0,
                "in use, and dropped"
            );
        }
        while heap.is_collecting() {
            heap.collect_units(step);
            units += step;
            assert!(units <= MOST_UNITS, "the collection has no end");
        }
        assert_eq!(
            real.dropped.get() & graph.reached(),
            0,
            "in use, and dropped"
        );
        let kept = saved | held_by(&graph, saved);
        assert_eq!(
            garbage & !kept & !real.dropped.get(),
            0,
            "garbage that was there is found"
        );
        real.check(&graph);
        heap.collect(Generation::Old);
        assert_eq!(
            real.dropped.get(),
            !graph.reached() & ((1 << start.nodes) - 1),
            "what cannot be reached is dropped"
        );
        real.check(&graph);
    }
    let dropped = Rc::clone(&real.dropped);
    drop(real);
    heap.collect(Generation::Old);
    assert_eq!(dropped.get(), (1 << start.nodes) - 1, "all is let go of");
    exists.then_some((units, graph))
}

/// What these nodes hold, they included.
fn held_by(graph: &Graph, nodes: u8) -> u8 {
    let held = std::array::from_fn(|id| nodes >> id & 1);
    Graph { held, ..*graph }.reached()
}

/// Tries all schedules that begin with this one; how many.
fn explore(
    heap: &Heap,
    start: &Graph,
    style: Style,
    schedule: &mut Vec<(u32, Move)>,
    moves_left: usize,
) -> u64 {
    let told = Told(start, style, schedule.clone());
    // Without a move nothing depends on where slices end.
    let step = if moves_left > 0 { 1 } else { MOST_UNITS };
    let ran = run(heap, start, style, schedule, step);
    drop(told);
    let Some((units, graph)) = ran else { return 0 };
    let mut cases = 1;
    if moves_left > 0 {
        for of in graph.moves(style) {
            for after in 0..units {
                schedule.push((after, of));
                cases += explore(heap, start, style, schedule, moves_left - 1);
                schedule.pop();
            }
        }
    }
    cases
}

/// Says which case it is if that panics.
struct Told<'a>(&'a Graph, Style, Vec<(u32, Move)>);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in {:?}, {:?}: {:?}", self.0, self.1, self.2);
        }
    }
}

/// All graphs with this many nodes, each once however its nodes are called.
fn graphs(nodes: usize, most_held: u32) -> Vec<Graph> {
    let permutations = permutations(nodes);
    let mut graphs = Vec::new();
    for held in 0..1_u32 << nodes {
        if held.count_ones() > most_held {
            continue;
        }
        for edges in 0..1_u32 << (nodes * nodes) {
            let smallest = permutations.iter().all(|names| {
                let mut other = (0, 0);
                for from in 0..nodes {
                    other.0 |= (held >> from & 1) << names[from];
                    for to in 0..nodes {
                        let edge = edges >> (from * nodes + to) & 1;
                        other.1 |= edge << (names[from] * nodes + names[to]);
                    }
                }
                (held, edges) <= other
            });
            if smallest {
                let row = |from: usize| (edges >> (from * nodes) & ((1 << nodes) - 1)) as u8;
                graphs.push(Graph {
                    nodes,
                    edges: std::array::from_fn(|id| if id < nodes { row(id) } else { 0 }),
                    held: std::array::from_fn(|id| (held >> id & 1) as u8),
                });
            }
        }
    }
    graphs
}

fn permutations(of: usize) -> Vec<Vec<usize>> {
    if of == 0 {
        return vec![Vec::new()];
    }
    let shorter = permutations(of - 1);
    let longer = shorter.iter().flat_map(|names| {
        (0..of).map(|at| {
            let mut names = names.clone();
            names.insert(at, of - 1);
            names
        })
    });
    longer.collect()
}

/// Whether the wider bounds are asked for.
fn is_thorough() -> bool {
    std::env::var("HEAP_GRAPHS").is_ok_and(|graphs| graphs == "all")
}

/// Tries all cases of these graphs. Under a sanitizer, of one in so many.
fn all(graphs: Vec<Graph>, styles: &[Style], moves: usize) -> u64 {
    let heap = Heap::new();
    heap.disable();
    let one_in = if cfg!(filed_asan) { 16 } else { 1 };
    let mut cases = 0;
    for graph in graphs.iter().step_by(one_in) {
        for &style in styles {
            cases += explore(&heap, graph, style, &mut Vec::new(), moves);
        }
    }
    assert_eq!(heap.stats().live_objects, 0);
    cases
}

#[test]
fn there_are_as_many_graphs_as_there_should_be() {
    // OEIS A000595: binary relations on n unlabeled points.
    for (nodes, count) in [(1, 2), (2, 10), (3, 104), (4, 3044)] {
        assert_eq!(graphs(nodes, 0).len(), count);
    }
}

#[test]
fn one_and_two_nodes_and_three_moves() {
    let cases = all(graphs(1, 1), &ALL_STYLES, 3) + all(graphs(2, 2), &ALL_STYLES, 3);
    println!("{cases} cases");
}

#[test]
fn three_nodes_and_one_move() {
    println!("{} cases", all(graphs(3, 3), &ALL_STYLES, 1));
}

#[test]
fn three_nodes_and_two_moves() {
    let most_held = if is_thorough() { 3 } else { 1 };
    println!("{} cases", all(graphs(3, most_held), &[Style::Cells], 2));
}

#[test]
fn four_nodes_and_one_move() {
    let mut graphs = graphs(4, 1);
    if !is_thorough() {
        graphs.retain(|graph| (0..4).all(|id| !graph.has(id, id)));
    }
    println!("{} cases", all(graphs, &[Style::Cells], 1));
}
