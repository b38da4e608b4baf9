// Zoom and pan of index.html: one view, which both panes share. Panzoom does the work; this keeps two of
// them in step.

const [LEAST, MOST] = [1 / 16, 64]; // pixels of CSS a pixel
const ZOOMS = [1 / 8, 1 / 4, 1 / 2, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32]; // pixels of the screen a pixel
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const stage = document.getElementById('stage');
let fitted = true; // until the reader zooms or moves

const panes = [...stage.querySelectorAll('.pane')].map(element => {
  const sheet = element.querySelector('.sheet');
  return {element, sheet, tag: element.querySelector('.tag'), images: new Map(), turn: 0};
});

function apply(_, {x, y, scale}) {
  for (const {sheet} of panes) {
    sheet.style.transform = `scale(${scale}) translate(${x}px, ${y}px)`;
    // Crisp pixels, unless that would leave some out, or double some and not their neighbours.
    const zoom = scale * devicePixelRatio;
    sheet.classList.toggle('smooth', zoom < 2 && Math.abs(zoom - 1) > 1e-6);
  }
  document.getElementById('scale').textContent = `${Math.round(100 * scale * devicePixelRatio)} %`;
}

for (const pane of panes) {
  pane.zoomer = Panzoom(pane.sheet, {
    canvas: true, cursor: 'grab', minScale: LEAST, maxScale: MOST, setTransform: apply,
  });
  pane.sheet.addEventListener('panzoomchange', event => follow(pane, event.detail));
  pane.element.addEventListener('wheel', event => {
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 30 : 1;
    const pinch = event.ctrlKey ? 8 : 1; // of two fingers on a touchpad: small deltas
    zoomTo(pane.zoomer.getScale() * Math.exp(-event.deltaY * lines * pinch / 600), event, pane);
  }, {passive: false});
}

/** The library draws in the next frame, but measures what is drawn: a second event would see the old. */
function drawNow({zoomer}) {
  apply(null, {...zoomer.getPan(), scale: zoomer.getScale()});
}

/** The other pane's library learns the view that its sheet already has. */
function follow(pane, {x, y, scale}) {
  const quietly = {silent: true, force: true, animate: false, setTransform: () => {}};
  for (const other of panes) {
    if (other === pane) continue;
    other.zoomer.zoom(scale, quietly);
    other.zoomer.pan(x, y, quietly);
  }
}

function zoomTo(scale, point, pane = panes[0]) {
  fitted = false;
  pane.zoomer.zoomToPoint(clamp(scale, LEAST, MOST), point);
  drawNow(pane);
}

const fingers = new Map();
/** The library adds step / 80 to the scale for each pixel that two fingers part; to follow them: */
function setPinchStep() {
  if (fingers.size !== 2) return;
  const [one, other] = fingers.values();
  const apart = Math.max(Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY), 20);
  for (const {zoomer} of panes) zoomer.setOptions({step: 80 * zoomer.getScale() / apart});
}

function zoomStep(direction) {
  const now = panes[0].zoomer.getScale() * devicePixelRatio;
  const steps = direction > 0 ? ZOOMS.filter(zoom => zoom > now * 1.01) : ZOOMS.filter(zoom => zoom < now * 0.99);
  if (!steps.length) return;
  const box = panes[0].element.getBoundingClientRect();
  const middle = {clientX: box.left + box.width / 2, clientY: box.top + box.height / 2};
  zoomTo(steps.at(direction > 0 ? 0 : -1) / devicePixelRatio, middle);
}

/** Shows the rectangle (in the picture's pixels) in the middle, enlarged; on a coarse screen by a whole number. */
function lookAt(x, y, width, height, most) {
  const box = panes[0].element.getBoundingClientRect();
  let zoom = Math.min(box.width / width, box.height / height) * devicePixelRatio;
  if (zoom >= 1 && devicePixelRatio < 2) zoom = Math.floor(zoom);
  zoom = Math.min(zoom, most);
  const scale = zoom / devicePixelRatio;
  const onScreen = value => Math.round(value * devicePixelRatio) / devicePixelRatio;
  const left = onScreen(box.width / 2 - (x + width / 2) * scale);
  const top = onScreen(box.height / 2 - (y + height / 2) * scale);
  const now = {animate: false, force: true};
  const {offsetWidth, offsetHeight} = panes[0].sheet;
  const half = {x: offsetWidth / 2, y: offsetHeight / 2}; // the library scales about the middle
  panes[0].zoomer.zoom(scale, now);
  panes[0].zoomer.pan((left - half.x) / scale + half.x, (top - half.y) / scale + half.y, now);
}

function fit() {
  if (!stage.clientWidth) return; // another section is shown
  fitted = true;
  const {offsetWidth, offsetHeight} = panes[0].sheet;
  lookAt(0, 0, offsetWidth, offsetHeight, Infinity);
}

function move(right, down) {
  fitted = false;
  const scale = panes[0].zoomer.getScale();
  panes[0].zoomer.pan(right / scale, down / scale, {relative: true});
}
