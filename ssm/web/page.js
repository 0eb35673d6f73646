// SPDX-License-Identifier: Apache-2.0
// Shows the looks that the server streams. Texts come out of shared memory: they become text nodes, never markup.
'use strict'

const WINDOW_S = 120
const DOTS = 20
const EVENTS = 10
const LETTERS = 8
const LOST_MS = 6000
const SAYS_MS = 3000 // a sentence stands so long, unless what it says is of another kind

const at = id => document.getElementById(id)
const set = (node, text) => { if (node.textContent !== String(text)) node.textContent = text }
const mark = (node, name, value) => { if (node.dataset[name] !== String(value)) node.dataset[name] = value }

function make (tag, kind, ...inside) {
  const node = document.createElement(tag)
  if (kind) node.className = kind
  node.append(...inside)
  return node
}

function draw (tag, attributes) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag)
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value)
  return node
}

// ---- numbers ----

const whole = new Intl.NumberFormat('en')
const count = number => whole.format(Math.round(number))
const many = (number, what, more = `${what}s`) => `${count(number)} ${number === 1 ? what : more}`

function short (number) {
  for (const [size, unit] of [[1e9, ' G'], [1e6, ' M'], [1e3, ' k']]) {
    if (number >= size) return (number / size).toPrecision(3) + unit
  }
  return number >= 10 || number === 0 ? String(Math.round(number)) : number.toPrecision(2)
}

function bytes (number) {
  for (const [size, unit] of [[2 ** 30, 'GiB'], [2 ** 20, 'MiB'], [2 ** 10, 'KiB']]) {
    if (number >= size) return `${Number((number / size).toPrecision(3))} ${unit}`
  }
  return `${number} B`
}

function span (seconds) {
  if (seconds < 60) return `${Math.max(0, Math.floor(seconds))} s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`
  return seconds < 86400 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86400)} d`
}

const percent = share => `${Math.round(100 * share)} %`
const width = rate => 9 + 15 * Math.min(1, Math.log10(1 + rate) / 6) // of a pipe, by packets a second
const speed = rate => rate < 0.5 ? 0 : rate < 100 ? 1 : rate < 10000 ? 2 : 3

// Rows of a list, made once for each key and then changed: what stands still is not touched.
function rows (parent, items, key, create, update) {
  parent.known ??= new Map()
  const wanted = items.map(key)
  for (const [name, node] of parent.known) {
    if (!wanted.includes(name)) { node.remove(); parent.known.delete(name) }
  }
  items.forEach((item, place) => {
    const name = wanted[place]
    let node = parent.known.get(name)
    if (!node) { node = create(item); parent.known.set(name, node) }
    if (parent.children[place] !== node) parent.insertBefore(node, parent.children[place] ?? null)
    update(node, item)
  })
}

// ---- the top ----

let said = { at: 0, kind: '' }

function say (verdict) {
  const kind = verdict.tone + verdict.text.replace(/[\d.,]+/g, '0')
  const now = performance.now()
  if (kind === said.kind && now - said.at < SAYS_MS) return
  said = { at: now, kind }
  mark(at('verdict'), 'tone', verdict.tone)
  set(at('verdict'), verdict.text)
}

function link (state, text) {
  mark(at('link'), 'state', state)
  set(at('link'), text)
  document.body.classList.toggle('lost', state !== 'live')
}

// ---- the picture ----

const STAGE = { width: 190, least: 148, height: 94 }
const RING = { width: 150, least: 104, height: 76 }
const GAP = 30
const GAP_LEAST = 16

function stageNode () {
  const node = make('div', 'node stage', make('div', '', make('b'), make('span', 'rate')),
    make('div', 'bar', make('i', 'busy'), make('i', 'starved'), make('i', 'blocked')),
    make('div', 'workers', make('span', 'dots'), make('small')))
  node.setAttribute('role', 'group')
  return node
}

function showStage (node, stage, first) {
  const [head, bar, workers] = node.children
  set(head.firstChild, stage.name); head.firstChild.title = stage.name
  set(head.lastChild, `${short(stage.rate)}/s`)
  const shares = [stage.busy, stage.starved, stage.blocked]
  shares.forEach((share, place) => { bar.children[place].style.flexGrow = share })
  rows(workers.firstChild, stage.workers.slice(0, DOTS), worker => worker.number, () => make('i', 'dot'), (dot, worker) => {
    mark(dot, 'state', worker.state)
    dot.title = `worker ${worker.number}, pid ${worker.pid || '-'}: ${worker.state}`
  })
  const left = stage.workers.length - DOTS
  const restarts = stage.restarts ? many(stage.restarts, 'restart') : ''
  set(workers.lastChild, [left > 0 ? `+${left}` : '', restarts || (stage.workers.length ? '' : 'has ended')].filter(Boolean).join(', ') || stage.kind)
  node.classList.toggle('first', first)
  node.setAttribute('aria-label', `${stage.kind} ${stage.name}: ${count(stage.rate)} packets a second; busy ${percent(shares[0])}, ` +
    `starved ${percent(shares[1])}, blocked ${percent(shares[2])}; ${many(stage.workers.length, 'worker')}; ${many(stage.restarts, 'restart')}`)
  node.title = `busy ${percent(shares[0])}, starved ${percent(shares[1])}, blocked ${percent(shares[2])}; in ${count(stage.in)}, out ${count(stage.out)}`
}

const pipe = () => make('div', 'pipe', make('i', 'empty'), make('i', 'ready'), make('i', 'hand'))

function fill (node, ring) {
  const hand = ring.in_hand ?? 0
  const parts = [Math.max(0, ring.capacity - ring.depth - hand), ring.depth, hand]
  parts.forEach((part, place) => { node.children[place].style.flexGrow = part })
  node.style.height = `${width(ring.put_rate)}px`
  node.classList.toggle('full', ring.depth >= 0.9 * ring.capacity)
}

function ringNode (ring) {
  const node = make('a', 'node ring', make('div', '', make('b'), make('span', 'rate')), pipe(), make('small'))
  node.href = `#ring-${ring.id}`
  return node
}

function showRing (node, ring) {
  const [head, tube, caption] = node.children
  set(head.firstChild, ring.name); head.firstChild.title = ring.name
  set(head.lastChild, `${short(ring.put_rate)}/s`)
  fill(tube, ring)
  set(caption, `${count(ring.depth)} of ${count(ring.capacity)}`)
  node.setAttribute('aria-label', `ring ${ring.name}: ${count(ring.depth)} of ${count(ring.capacity)} ready, ${count(ring.put_rate)} packets a second`)
}

// What is to be drawn: of a pipeline, its stages and rings as the server places them; of another pool, its rings.
function plan (look) {
  const byName = new Map(look.rings.map(ring => [ring.name, ring]))
  if (!look.pipeline) {
    return { nodes: look.rings.map((ring, place) => ({ kind: 'ring', name: ring.name, item: ring, column: 0, row: place })), edges: [], loose: true }
  }
  const stages = new Map(look.pipeline.stages.map(stage => [stage.name, stage]))
  const nodes = look.pipeline.nodes.map(node => ({ ...node, item: (node.kind === 'ring' ? byName : stages).get(node.name) }))
  return { nodes, edges: look.pipeline.edges.filter(([a, b]) => nodes[a].item && nodes[b].item), loose: false }
}

// Places nodes: left to right where there is room, otherwise from top to bottom.
function place (drawn, room) {
  const shape = node => node.kind === 'stage' ? STAGE : RING
  if (drawn.loose) {
    const across = Math.max(1, Math.min(drawn.nodes.length, Math.floor((room + GAP) / (RING.width + GAP))))
    const step = Math.min((room + GAP) / across, RING.width + 3 * GAP)
    drawn.nodes.forEach((node, number) => {
      node.x = (number % across) * step; node.y = Math.floor(number / across) * (RING.height + 10); node.shape = RING
    })
    return { width: room, height: Math.ceil(drawn.nodes.length / across) * (RING.height + 10), down: false }
  }
  const columns = Math.max(0, ...drawn.nodes.map(node => node.column)) + 1
  const inside = [...Array(columns).keys()].map(column => drawn.nodes.filter(node => node.column === column).map(shape))
  const most = (side, nodes) => Math.max(0, ...nodes.map(each => each[side]))
  const total = side => inside.reduce((sum, nodes) => sum + most(side, nodes), 0)
  const [narrow, ample] = [total('least') + GAP_LEAST * (columns - 1), total('width') + GAP * (columns - 1)]
  const down = narrow > room
  const share = Math.min(1, (room - narrow) / Math.max(1, ample - narrow)) // of what nodes may be wider than at least
  const between = (least, width) => least + share * (width - least)
  const rowsThere = drawn.nodes.map(node => node.row)
  const low = Math.min(...rowsThere); const high = Math.max(...rowsThere)
  if (!down) {
    const wide = inside.map(nodes => between(most('least', nodes), most('width', nodes)))
    const gap = columns > 1 ? between(GAP_LEAST, GAP) + Math.min(2 * GAP, Math.max(0, room - ample) / (columns - 1)) : 0
    const lefts = wide.map((_, column) => wide.slice(0, column).reduce((sum, each) => sum + each + gap, 0))
    const step = STAGE.height + 22
    for (const node of drawn.nodes) {
      node.shape = { width: between(shape(node).least, shape(node).width), height: shape(node).height }
      node.x = lefts[node.column] + (wide[node.column] - node.shape.width) / 2
      node.y = (node.row - low) * step + (STAGE.height - node.shape.height) / 2
    }
    return { width: lefts[columns - 1] + wide[columns - 1], height: (high - low) * step + STAGE.height, down }
  }
  const beside = high - low
  const stage = Math.max(STAGE.least, Math.min(STAGE.width, (room - 14 * beside) / (beside + 1)))
  const step = stage + 14
  const full = Math.max(room, beside * step + stage)
  const tall = inside.map(nodes => most('height', nodes))
  for (const node of drawn.nodes) {
    const alone = beside ? stage : Math.min(full, 360)
    node.shape = { width: node.kind === 'stage' ? alone : alone - 36, height: shape(node).height }
    node.x = (node.row - low) * step + (full - beside * step - node.shape.width) / 2
    node.y = tall.slice(0, node.column).reduce((sum, each) => sum + each + 20, 0)
  }
  return { width: full, height: tall.reduce((sum, each) => sum + each + 20, -20), down }
}

function curve (a, b, down) {
  if (down) {
    const [x1, y1, x2, y2] = [a.x + a.shape.width / 2, a.y + a.shape.height, b.x + b.shape.width / 2, b.y]
    const half = (y2 - y1) / 2
    return `M${x1},${y1 - 2}C${x1},${y1 + half} ${x2},${y2 - half} ${x2},${y2 + 2}`
  }
  const [x1, y1, x2, y2] = [a.x + a.shape.width, a.y + a.shape.height / 2, b.x, b.y + b.shape.height / 2]
  const half = (x2 - x1) / 2
  return `M${x1 - 5},${y1}C${x1 + half},${y1} ${x2 - half},${y2} ${x2 + 5},${y2}`
}

let shape = ''

function showGraph (look) {
  const graph = at('graph')
  const room = graph.parentElement.clientWidth - 8
  const drawn = plan(look)
  const there = drawn.nodes.filter(node => node.item)
  const now = JSON.stringify([room, drawn.nodes.map(node => [node.kind, node.item?.id, node.name, node.column, node.row]), drawn.edges])
  if (now !== shape) {
    shape = now
    const size = place(drawn, room)
    graph.style.width = `${size.width}px`
    graph.style.height = `${size.height}px`
    const back = draw('svg', { 'aria-hidden': 'true' })
    graph.edges = drawn.edges.map(([a, b]) => {
      const d = curve(drawn.nodes[a], drawn.nodes[b], size.down)
      const lines = [draw('path', { d }), draw('path', { d, class: 'moves' })]
      back.append(...lines)
      return lines
    })
    graph.replaceChildren(back)
    graph.boxes = new Map()
    for (const node of there) {
      const box = node.kind === 'stage' ? stageNode() : ringNode(node.item)
      box.style.left = `${node.x}px`; box.style.top = `${node.y}px`
      box.style.width = `${node.shape.width}px`; box.style.height = `${node.shape.height}px`
      graph.boxes.set(`${node.kind} ${node.name}`, box)
      graph.append(box)
    }
  }
  const load = look.pipeline && look.verdict.tone === 'busy' ? Math.max(...look.pipeline.stages.map(stage => stage.busy)) : 2
  for (const node of there) {
    const box = graph.boxes.get(`${node.kind} ${node.name}`)
    if (node.kind === 'stage') showStage(box, node.item, node.item.busy === load && load > 0.5)
    else showRing(box, node.item)
  }
  drawn.edges.forEach(([a, b], number) => {
    const rate = (drawn.nodes[a].kind === 'ring' ? drawn.nodes[a].item.get_rate : drawn.nodes[b].item.put_rate)
    const [band, moves] = graph.edges[number]
    band.style.strokeWidth = `${Math.max(2, width(rate) * 0.55)}px`
    mark(moves, 'speed', speed(rate))
  })
  at('key').hidden = !look.pipeline
  at('picture').hidden = !there.length
}

// ---- worst first ----

function showFindings (look) {
  const shown = look.findings.length ? look.findings : [{ weight: 0, text: 'Nothing wants a look.', remedy: '' }]
  rows(at('findings'), shown, (each) => each.text.replace(/[\d.,]+/g, '0'), () => make('li', '', make('span'), make('small')), (node, each) => {
    mark(node, 'weight', each.weight)
    set(node.firstChild, each.text); set(node.lastChild, each.remedy)
    node.lastChild.hidden = !each.remedy
  })
}

// ---- rings ----

const past = new Map() // number of a ring -> [when, depth, in hand]

function remember (look) {
  if (look.history) {
    past.clear()
    for (const [ring, points] of Object.entries(look.history)) past.set(Number(ring), points)
  }
  for (const ring of look.rings) {
    const points = past.get(ring.id) ?? []
    if (!points.length || points.at(-1)[0] < look.at) points.push([look.at, ring.depth, ring.in_hand ?? 0])
    while (points.length && points[0][0] < look.at - WINDOW_S) points.shift()
    past.set(ring.id, points)
  }
}

function ringCard (ring) {
  const plot = draw('svg', { viewBox: '0 0 240 62', preserveAspectRatio: 'none', role: 'img' })
  plot.append(draw('path', { class: 'area' }), draw('path', { class: 'depth' }), draw('path', { class: 'taken' }))
  const facts = make('dl', 'facts')
  const card = make('article', 'card', make('div', '', make('b'), make('span', 'rate')), make('div', 'plot', plot, make('small')), facts, make('p', 'ways'))
  card.id = `ring-${ring.id}`
  return card
}

function showCard (card, ring, now) {
  const [head, plot, facts, ways] = card.children
  set(head.firstChild, ring.name); head.firstChild.title = ring.name
  set(head.lastChild, `${short(ring.put_rate)}/s in, ${short(ring.get_rate)}/s out`)
  const points = past.get(ring.id) ?? []
  const top = Math.max(4, ...points.map(point => Math.max(point[1], point[2])))
  const line = column => points.map((point, number) =>
    `${number ? 'L' : 'M'}${(240 - 240 * (now - point[0]) / WINDOW_S).toFixed(1)},${(61 - 57 * point[column] / top).toFixed(1)}`).join('')
  const depth = line(1)
  const [area, ready, taken] = plot.firstChild.children
  ready.setAttribute('d', depth)
  area.setAttribute('d', depth && `${depth}V62H${(240 - 240 * (now - points[0][0]) / WINDOW_S).toFixed(1)}Z`)
  taken.setAttribute('d', ring.in_hand === null ? '' : line(2))
  set(plot.lastChild, count(top))
  plot.firstChild.setAttribute('aria-label', `depth of ${ring.name}: ${count(ring.depth)} now, ${count(top)} at most in two minutes`)
  const shown = [
    ['ready', ring.depth, ring.depth >= ring.capacity], ['in hand', ring.in_hand, false], ['capacity', ring.capacity, false],
    ['at most', ring.high_water, false], ['delivered again', ring.redelivered || null, false], ['lost', ring.drops || null, ring.drop_rate > 0]
  ].filter(fact => fact[1] !== null)
  rows(facts, shown, fact => fact[0], fact => make('div', '', make('dt', '', fact[0]), make('dd')), (node, fact) => {
    set(node.lastChild, count(fact[1])); node.classList.toggle('hot', fact[2])
  })
  const sides = ring.from.length || ring.to.length
    ? `${ring.from.join(', ') || 'nobody'} → ${ring.to.join(', ') || 'nobody'}`
    : `${many(ring.users, 'process has', 'processes have')} it open`
  const one = [ring.producers === 'one' && 'one producer', ring.consumers === 'one' && 'one consumer', ring.overflow !== 'block' && ring.overflow].filter(Boolean)
  set(ways, [sides, ...one].join(' · '))
}

// ---- the time line ----

const LANES = [['start', 'starts'], ['end', 'ends'], ['death', 'deaths'], ['redelivery', 'redelivered']]

function showEvents (look) {
  const lanes = at('lanes')
  if (!lanes.firstChild) {
    for (const [kind, name] of LANES) {
      const lane = make('div', 'lane', make('span', '', name), make('div'))
      lane.dataset.kind = kind
      lanes.append(lane)
    }
    lanes.append(make('p', 'scale', make('span', '', '2 min ago'), make('span', '', '1 min'), make('span', '', 'now')))
  }
  for (const lane of lanes.children) {
    if (!lane.dataset.kind) continue
    const own = look.events.filter(event => event.kind === lane.dataset.kind && look.at - event.at < WINDOW_S)
    rows(lane.lastChild, own, event => `${event.at} ${event.who}`, event => { const node = make('i', 'mark'); node.dataset.kind = event.kind; return node }, (node, event) => {
      node.style.left = `${(100 - 100 * (look.at - event.at) / WINDOW_S).toFixed(2)}%`
    })
  }
  const latest = look.events.slice(-EVENTS).reverse()
  const none = [{ at: null, who: 'Nothing has happened since this page looks.', kind: '', text: '' }]
  rows(at('events'), latest.length ? latest : none, event => `${event.at} ${event.who} ${event.kind}`, event => {
    const node = make('li', '', make('time'), make('span', '', event.who), make('span', '', event.text))
    node.dataset.kind = event.kind
    return node
  }, (node, event) => set(node.firstChild, event.at === null ? '' : `${span(look.at - event.at)} ago`))
}

// ---- dead letters ----

function showLetters (look) {
  at('letters-part').hidden = !look.letters.length
  set(at('letters-more'), look.letters.length > LETTERS ? `the latest ${LETTERS}` : '')
  rows(at('letters'), look.letters.slice(-LETTERS).reverse(), letter => `${letter.stage} ${letter.tag} ${letter.head}`, letter => {
    const last = letter.reason.trim().split('\n').at(-1)
    return make('details', '', make('summary', '', `${letter.stage}, tag ${letter.tag}: ${last}`),
      make('pre', '', letter.reason.trim()), make('small', '', `${many(letter.length, 'byte')}: ${letter.head}${letter.length > letter.head.length / 3 + 1 ? ' …' : ''}`))
  }, () => {})
}

// ---- holders and blocks ----

function showHolders (look) {
  const cells = ['', 'number wide', 'number', 'number', 'number wide']
  rows(at('holders'), look.holders, each => `${each.kind} ${each.pid} ${each.name}`, () => make('tr', '', ...cells.map(kind => make('td', kind))), (node, each) => {
    node.className = each.alive ? `a-${each.kind}` : 'dead a-process'
    const texts = [each.alive ? each.name : `${each.name}, dead`, each.pid || '', count(each.blocks), bytes(each.bytes), each.pid ? span(each.age) : '']
    texts.forEach((text, number) => set(node.children[number], text))
    node.firstChild.title = each.kind
  })
  at('more').hidden = !look.left_out
  set(at('more'), `${count(look.left_out)} more are not shown.`)
}

const CELL = 9
const STEP = 11
const INKS = { '.': '--free', r: '--ready', h: '--busy', d: '--bad' }

function paint (canvas, cells) {
  const room = canvas.parentElement.clientWidth
  const across = Math.max(1, Math.floor((room + STEP - CELL) / STEP))
  const inks = getComputedStyle(document.documentElement)
  const key = [room, devicePixelRatio, inks.colorScheme, dark.matches, cells].join()
  if (canvas.painted === key || !room) return
  canvas.painted = key
  const tall = Math.ceil(cells.length / across) * STEP
  canvas.width = room * devicePixelRatio; canvas.height = tall * devicePixelRatio
  canvas.style.height = `${tall}px`
  const pen = canvas.getContext('2d')
  pen.scale(devicePixelRatio, devicePixelRatio)
  const probe = canvas.parentElement
  for (const [letter, name] of Object.entries(INKS)) {
    probe.style.outlineColor = `var(${name})`
    pen.fillStyle = getComputedStyle(probe).outlineColor
    for (let place = 0; place < cells.length; place++) {
      if (cells[place] !== letter) continue
      pen.beginPath()
      pen.roundRect((place % across) * STEP, Math.floor(place / across) * STEP, CELL, CELL, 2)
      pen.fill()
    }
  }
}

const dark = matchMedia('(prefers-color-scheme: dark)')

function showBlocks (look) {
  rows(at('blocks'), look.classes, each => each.block_size, () => {
    const canvas = make('canvas')
    canvas.setAttribute('role', 'img')
    return make('div', '', make('p', '', make('b'), make('span', 'soft')), canvas)
  }, (node, each) => {
    const [head, canvas] = node.children
    set(head.firstChild, bytes(each.block_size))
    const waits = each.waiters ? `, ${count(each.waiters)} wait` : ''
    const cells = each.per_cell > 1 ? `, ${count(each.per_cell)} to a square` : ''
    set(head.lastChild, `${count(each.held)} held, ${count(each.cached)} cached, of ${count(each.blocks)}${waits}${cells}`)
    canvas.setAttribute('aria-label', `blocks of ${bytes(each.block_size)}: ${count(each.held)} of ${count(each.blocks)} held`)
    canvas.hidden = !each.held // a map of nothing tells nothing
    if (each.held) paint(canvas, each.cells)
  })
  showArena(look.arena)
}

function showArena (arena) {
  const parent = at('blocks')
  if (!arena) { parent.arena?.remove(); parent.arena = null; return }
  parent.arena ??= make('div', '', make('p', '', make('b', '', 'arena'), make('span', 'soft')), make('div', 'bar', make('i', 'busy'), make('i', 'starved'), make('i', 'empty')))
  parent.append(parent.arena)
  const [head, bar] = parent.arena.children
  set(head.lastChild, `${bytes(arena.used)} in ${many(arena.held, 'packet')}, ${bytes(arena.backed)} reserved, at most ${bytes(arena.bytes)}`)
  const parts = [arena.used, Math.max(0, arena.backed - arena.used), Math.max(0, arena.bytes - Math.max(arena.backed, arena.used))]
  parts.forEach((part, place) => { bar.children[place].style.flexGrow = part / Math.max(1, arena.bytes) })
}

function showBridges (look) {
  at('bridges-part').hidden = !look.bridges.length
  rows(at('bridges'), look.bridges, end => `${end.way} ${end.name} ${end.pid}`,
    () => make('article', 'card', make('div', '', make('b')), make('p', 'ways'), make('p', 'ways')), (card, end) => {
      const [head, peer, figures] = card.children
      set(head.firstChild, `${end.name} ${end.way}`)
      set(peer, end.peer || 'nobody was met yet')
      const shown = end.figures.filter(([, value], place) => value || place < 2)
      set(figures, shown.map(([name, value]) => `${name} ${Number.isInteger(value) ? count(value) : value.toFixed(1)}`).join(' · '))
    })
}

function showServices (look) {
  at('services-part').hidden = !look.services.length
  rows(at('services'), look.services, each => each.name, () => make('tr', '', make('td'), make('td'), make('td', 'number'), make('td', 'number')), (node, each) => {
    [each.name, each.kind, count(each.used), count(each.capacity)].forEach((text, number) => set(node.children[number], text))
  })
}

// ---- the stream ----

let latest = null

function show (look) {
  latest = look.gone === null ? look : null
  say(look.verdict)
  link(look.gone === null ? 'live' : 'gone', look.gone === null ? 'live' : 'waiting for the pool')
  if (!latest) return
  document.title = `${look.pool.name.replace(/^\//, '')}: ssm`
  set(at('name'), look.pipeline ? look.pipeline.name : look.pool.name.replace(/^\//, ''))
  set(at('about'), (look.pipeline ? `pool ${look.pool.name.replace(/^\//, '')}, ${bytes(look.pool.size)}, runs for ${span(look.pipeline.seconds)}` : bytes(look.pool.size)))
  remember(look)
  showGraph(look)
  showFindings(look)
  rows(at('rings'), look.rings, ring => ring.id, ringCard, (card, ring) => showCard(card, ring, look.at))
  showEvents(look)
  showLetters(look)
  showHolders(look)
  showBlocks(look)
  showBridges(look)
  showServices(look)
}

let heard = performance.now()

function lost () {
  said = { at: 0, kind: '' }
  link('lost', 'connection lost')
  mark(at('verdict'), 'tone', 'gone')
  set(at('verdict'), 'The connection is lost; trying again.')
}

function listen () {
  const source = new EventSource('/events')
  source.onmessage = message => { heard = performance.now(); show(JSON.parse(message.data)) }
  source.onerror = () => {
    lost()
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 3000) // refused: too many pages are open
  }
}

setInterval(() => { if (performance.now() - heard > LOST_MS) lost() }, 1000)
new ResizeObserver(() => { if (latest) { showGraph(latest); showBlocks(latest) } }).observe(document.body)
dark.addEventListener('change', () => { if (latest) showBlocks(latest) })
listen()
