// The pictures of index.html, after zoom.js. Works from file://, so: no fetch, no module, no reading of a canvas.
const data = JSON.parse(document.getElementById('data').textContent);
const TRUTH = 'truth';
const $ = id => document.getElementById(id);
const state = {task: 0, picture: 0, shown: [], before: TRUTH, side: 0, layout: 'one', overlay: 'picture'};

const task = () => data.tasks[state.task];
const picture = () => task().pictures[state.picture];
const variants = () => task().variants.filter(variant => variant in picture().files);
const label = variant => data.variants[variant];
const two = () => state.layout !== 'one';

// ---- The pictures: decoded before they are shown, so that a switch does not flash -----------

/** The images that show a variant: [address, role]. */
function layers(variant) {
  const {files, maps} = picture();
  if (state.overlay === 'ssim' && files[TRUTH]) return variant === TRUTH ? [] : [[maps[variant], 'map']];
  const own = [files[variant], 'own'];
  return state.overlay === 'difference' && files[TRUTH] ? [own, [files[TRUTH], 'minus']] : [own];
}

function imageIn(pane, address, role) {
  const key = `${role} ${address}`;
  if (!pane.images.has(key)) {
    const image = new Image();
    image.className = role;
    image.alt = '';
    image.draggable = false;
    image.src = address;
    pane.sheet.append(image);
    pane.images.set(key, image);
  }
  return pane.images.get(key);
}

async function show(pane, variant) {
  const turn = ++pane.turn;
  const of = picture();
  const wanted = layers(variant).map(([address, role]) => imageIn(pane, address, role));
  const decoded = await Promise.allSettled(wanted.map(image => image.decode()));
  if (turn !== pane.turn) return false; // the reader has gone on
  if (pane.of !== of) {
    const kept = new Set(Object.values(of.files).concat(Object.values(of.maps)));
    for (const [key, image] of pane.images) {
      if (kept.has(image.getAttribute('src'))) continue;
      image.remove();
      pane.images.delete(key);
    }
    pane.of = of;
    pane.sheet.style.width = `${of.width}px`;
    pane.sheet.style.height = `${of.height}px`;
    if (pane === panes[0]) fit();
  }
  for (const image of pane.images.values()) image.classList.toggle('on', wanted.includes(image));
  const what = {picture: '', difference: 'difference of ', ssim: 'SSIM map of '}[state.overlay];
  if (wanted.length) wanted[0].alt = `${what}${label(variant)}, ${of.name}`;
  pane.sheet.dataset.overlay = state.overlay;
  pane.sheet.dataset.variant = variant;
  pane.tag.textContent = label(variant) + (decoded.some(d => d.status === 'rejected') ? ': no such file' : '');
  return true;
}

async function showAll() {
  stage.ariaBusy = 'true';
  const shows = panes.slice(0, two() ? 2 : 1).map((pane, side) => show(pane, state.shown[side]));
  if ((await Promise.all(shows)).every(Boolean)) stage.ariaBusy = 'false';
}

let ahead = 0;
let neighbours = [];
/** Decodes what the reader may want next: this picture's variants, then the pictures beside it. */
async function lookAhead() {
  const turn = ++ahead;
  const own = variants().flatMap(variant => layers(variant));
  for (const [address, role] of own) {
    const image = imageIn(panes[0], address, role);
    await image.decode().catch(() => {});
    if (turn !== ahead) return;
  }
  const {pictures} = task();
  neighbours = [1, pictures.length - 1].map(step => {
    const image = new Image();
    image.src = pictures[(state.picture + step) % pictures.length].files[state.shown[0]] ?? '';
    return image;
  });
}

// ---- What the reader chooses -----------------------------------------------------------------

/** What to show first of a task: Mix or the last network, and the truth to flip to. */
function defaults() {
  const there = variants();
  const first = there.includes('mix') ? 'mix' : there.filter(v => v !== TRUTH).at(-1) ?? TRUTH;
  const last = there.includes(TRUTH) ? TRUTH : there[0];
  state.shown = [first, last].map((variant, side) => there.includes(state.shown[side]) ? state.shown[side] : variant);
  if (!there.includes(state.before)) state.before = last;
}

function choose(variant, side = two() ? state.side : 0) {
  if (!variants().includes(variant)) return;
  if (variant !== state.shown[side]) state.before = state.shown[side];
  state.shown[side] = variant;
  render();
}

function flip() {
  choose(state.before);
}

function step(by) {
  const there = variants();
  const now = there.indexOf(state.shown[two() ? state.side : 0]);
  choose(there[(now + by + there.length) % there.length]);
}

function goTo(number) {
  const {length} = task().pictures;
  state.picture = (number + length) % length;
  defaults();
  render();
}

function goToTask(number) {
  state.task = number % data.tasks.length;
  state.picture = 0;
  defaults();
  render();
}

function setLayout(layout) {
  state.layout = layout;
  state.side = two() ? state.side : 0;
  stage.dataset.layout = layout;
  render();
  if (fitted) fit();
}

function setOverlay(overlay) {
  state.overlay = overlay;
  render();
}

// ---- Drawing the controls --------------------------------------------------------------------

function element(tag, content, properties = {}) {
  const made = document.createElement(tag);
  if (Array.isArray(content)) made.append(...content);
  else made.textContent = content; // as text: names may hold anything
  return Object.assign(made, properties);
}

function press(group, value) {
  for (const button of $(group).querySelectorAll('button')) {
    button.ariaPressed = String(button.dataset.value === String(value));
  }
}

/** The metrics that the list of results has room for. */
function columns() {
  const measured = data.metrics.filter(({name}) => variants().some(v => name in (picture().metrics[v] ?? {})));
  const main = measured.filter(({name}) => name === 'PSNR' || name === 'SSIM');
  return {measured, main: main.length ? main : measured.slice(0, 2)};
}

/** The best value of a metric in this picture, as it is written. */
function best({name, lower}) {
  const texts = variants().map(variant => picture().metrics[variant]?.[name]).filter(text => text !== undefined);
  const worth = text => (text === '∞' ? Infinity : text === '?' ? NaN : Number(text)) * (lower ? -1 : 1);
  return texts.reduce((a, b) => (worth(b) > worth(a) ? b : a), texts[0]);
}

function keyOf(variant, number) {
  return variant === TRUTH ? '0' : number < 9 ? String(number + 1) : '';
}

function drawVariants() {
  const {main} = columns();
  [...document.querySelectorAll('aside .head span')].slice(2).forEach((span, number) => {
    span.textContent = main[number]?.label.split(',')[0] ?? '';
  });
  const top = main.map(best);
  $('variants').replaceChildren(...variants().map((variant, number) => {
    const texts = main.map(({name}) => picture().metrics[variant]?.[name] ?? '');
    const key = keyOf(variant, number);
    const sides = two() ? ['L', 'R'].filter((_, side) => state.shown[side] === variant) : [];
    const spoken = main.flatMap(({label}, n) => texts[n] ? [`${label} ${texts[n]}`] : []);
    const button = element('button', [
      element('kbd', key), element('span', [label(variant), ...sides.map(side => element('i', side))], {className: 'name'}),
      ...texts.map((text, n) => element('span', text, {className: text === top[n] ? 'best' : ''})),
    ], {type: 'button', ariaLabel: [label(variant), ...spoken].join(', ')});
    if (key) button.setAttribute('aria-keyshortcuts', key);
    button.dataset.value = variant;
    button.ariaPressed = String(state.shown[two() ? state.side : 0] === variant);
    return button;
  }));
}

function drawMetrics() {
  const {measured} = columns();
  const shown = two() ? state.shown : [state.shown[0]];
  const head = shown.map(variant => element('th', label(variant), {scope: 'col'}));
  $('metrics').tHead.replaceChildren(element('tr', [element('td', ''), ...head]));
  $('metrics').tBodies[0].replaceChildren(...measured.map(metric => {
    const cells = shown.map(variant => {
      const text = picture().metrics[variant]?.[metric.name] ?? '';
      return element('td', text, {className: text === best(metric) ? 'best' : ''});
    });
    return element('tr', [element('th', metric.label, {scope: 'row'}), ...cells]);
  }));
  $('metrics').hidden = measured.length === 0;
}

function drawSpots() {
  $('spots').replaceChildren(...picture().spots.map((spot, number) => {
    const text = `SSIM ${spot.worst_ssim.toFixed(2)} (${label(spot.worst)}) to ` +
      `${spot.best_ssim.toFixed(2)} (${label(spot.best)})`;
    const button = element('button', [element('b', `Spot ${number + 1}`), element('span', text)], {type: 'button'});
    button.addEventListener('click', () => {
      fitted = false;
      lookAt(spot.x, spot.y, spot.size, spot.size, 6);
    });
    return button;
  }));
  $('spots-title').hidden = picture().spots.length === 0;
  $('caption').textContent = picture().caption;
  $('caption').hidden = !picture().caption;
}

function drawGain() {
  const gain = 2 ** $('gain').value;
  $('gain-value').textContent = gain;
  $('gain').ariaValueText = `times ${gain}`;
  stage.style.setProperty('--gain', gain);
}

let drawn = {};
function render() {
  if (drawn.task !== task()) {
    $('picture').replaceChildren(...task().pictures.map((view, number) =>
      element('option', `${number + 1}/${task().pictures.length} · ${view.name}`, {value: number})));
  }
  $('picture').value = state.picture;
  press('layouts', state.layout);
  press('overlays', state.overlay);
  $('overlays').hidden = !picture().files[TRUTH];
  press('sides', state.side);
  $('sides').hidden = !two();
  $('gain-box').hidden = state.overlay !== 'difference';
  $('divider').hidden = state.layout !== 'slider';
  if (drawn.picture !== picture()) drawSpots();
  drawVariants();
  drawMetrics();
  panes.forEach((pane, side) => pane.element.classList.toggle('active', two() && state.side === side));
  showAll();
  drawn = {task: task(), picture: picture()};
  const said = two() ? state.shown.map(label).join(' and ') : label(state.shown[0]);
  $('status').textContent = `${said}, ${picture().name}`;
  drawLinks();
  if (document.body.dataset.section === 'pictures') writeAddress();
  lookAhead();
}

// ---- The address: a link to a view, as each figure of the paper's supplement has one --------

function writeAddress() {
  const parts = [task().name, picture().name, ...(two() ? [...state.shown, state.layout] : [state.shown[0]])];
  history.replaceState(null, '', `#${parts.map(encodeURIComponent).join('/')}`);
}

function readAddress() {
  let parts;
  try {
    parts = location.hash.slice(1).split('/').map(decodeURIComponent);
  } catch {
    parts = []; // not an address of ours
  }
  const section = document.querySelector(`main > section#${CSS.escape(parts[0] || 'pictures')}`);
  document.body.dataset.section = section ? section.id : 'pictures';
  const number = data.tasks.findIndex(({name}) => name === parts[0]);
  if (number >= 0) {
    const there = number === state.task ? state.picture : 0; // a link to the task alone leads back to it
    state.task = number;
    const named = task().pictures.findIndex(({name}) => name === parts[1]);
    state.picture = named >= 0 ? named : there;
    const shown = parts.slice(2, 4).filter(part => variants().includes(part));
    if (shown.length) {
      state.shown = shown;
      state.layout = shown.length === 2 && ['side', 'slider'].includes(parts[4]) ? parts[4] : 'one';
    }
  }
  defaults();
  setLayout(state.layout);
}

function drawLinks() {
  const {section} = document.body.dataset;
  for (const link of document.querySelectorAll('.top nav a')) {
    const here = link.hash === `#${section === 'pictures' ? task().name : section}`;
    if (here) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
}

// ---- Events ----------------------------------------------------------------------------------

function onChoice(group, action) {
  $(group).addEventListener('click', event => {
    const button = event.target.closest('button');
    if (button) action(button.dataset.value, event);
  });
}

const KEYS = {
  ArrowLeft: () => goTo(state.picture - 1), ArrowRight: () => goTo(state.picture + 1),
  ArrowUp: () => step(-1), ArrowDown: () => step(1), t: () => goToTask(state.task + 1),
  o: () => setLayout('one'), s: () => setLayout('side'), l: () => setLayout('slider'),
  p: () => setOverlay('picture'), d: () => setOverlay('difference'), m: () => setOverlay('ssim'),
  '+': () => zoomStep(1), '=': () => zoomStep(1), '-': () => zoomStep(-1), f: fit,
  '?': () => $('help').showModal(),
};
const MOVES = {ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60]};

document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.altKey || event.metaKey || $('help').open) return;
  if (document.body.dataset.section !== 'pictures') return;
  const field = event.target.closest('select, input');
  if (field && (event.key.startsWith('Arrow') || field.tagName === 'SELECT')) return; // its own keys
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code)?.[1] ?? (/^\d$/.test(event.key) ? event.key : undefined);
  if (digit !== undefined) {
    const variant = digit === '0' ? TRUTH : variants()[digit - 1];
    const side = two() ? (event.shiftKey ? 1 - state.side : state.side) : 0;
    if (variant) choose(variant, side);
  } else if (event.shiftKey && event.key in MOVES) {
    move(...MOVES[event.key]);
  } else if (event.key === ' ' && (event.target === stage || event.target === document.body)) {
    flip();
  } else if (event.key in KEYS) {
    KEYS[event.key]();
  } else {
    return;
  }
  event.preventDefault();
});

let held; // the pane under the last finger
let down = null; // where a press on the picture began; null once it is a drag or a pinch
stage.addEventListener('pointerdown', event => {
  down = event.isPrimary ? {x: event.clientX, y: event.clientY} : null;
  fingers.set(event.pointerId, event);
  held = panes.find(pane => pane.element.contains(event.target));
  setPinchStep();
  if (event.target.closest('.pane')) stage.focus({preventScroll: true});
}, {capture: true});
document.addEventListener('pointermove', event => {
  if (held && fingers.has(event.pointerId)) drawNow(held);
  if (!down || Math.hypot(event.clientX - down.x, event.clientY - down.y) < 5) return;
  down = null;
  fitted = fitted && !event.target.closest?.('.pane');
});
for (const name of ['pointerup', 'pointercancel']) {
  document.addEventListener(name, event => fingers.delete(event.pointerId), {capture: true});
}
panes.forEach((pane, side) => pane.element.addEventListener('click', () => {
  if (!down) return;
  if (two() && state.side !== side) {
    state.side = side;
    render();
  } else {
    flip();
  }
}));

onChoice('layouts', setLayout);
onChoice('overlays', setOverlay);
onChoice('variants', (value, event) => choose(value, two() && event.shiftKey ? 1 - state.side : undefined));
onChoice('sides', value => {
  state.side = Number(value);
  render();
});
$('previous').addEventListener('click', () => goTo(state.picture - 1));
$('next').addEventListener('click', () => goTo(state.picture + 1));
$('picture').addEventListener('change', event => goTo(Number(event.target.value)));
$('in').addEventListener('click', () => zoomStep(1));
$('out').addEventListener('click', () => zoomStep(-1));
$('fit').addEventListener('click', fit);
$('help-open').addEventListener('click', () => $('help').showModal());
$('divider').addEventListener('input', event => stage.style.setProperty('--divider', event.target.value / 1000));
$('gain').addEventListener('input', drawGain);
// A button pressed with the mouse gives the keys back to the picture.
$('pictures').addEventListener('click', event => {
  if (event.detail > 0 && event.target.closest('button')) stage.focus({preventScroll: true});
});
addEventListener('hashchange', readAddress);

// ---- Start -----------------------------------------------------------------------------------

setTimeout(() => { // after the library's own first placing
  drawGain();
  readAddress();
  new ResizeObserver(() => fitted && fit()).observe(stage);
});
