// A volume's item along one dimension: what it owns, what that needs, and what lies around the volume.
#ifndef VECTOR_BYTES
#error "include variant.h, inside a namespace"
#endif

struct Side {
  int64_t size, r, crop;
  int64_t begin, end;   // own voxels
  int64_t first, last;  // positions that they need
  int64_t from, to;     // voxels that those see, inside of the volume
  bool reflect, zeros_weigh;

  int64_t own() const { return end - begin; }
  int64_t positions() const { return larger(0, last - first); }
  int64_t voxels() const { return larger(0, to - from); }
  bool has_position(int64_t i) const { return i >= crop && i < size - crop; }
  // Where voxel i is found, which may be outside of the volume; -1: it is a zero.
  int64_t source(int64_t i) const {
    if (i >= 0 && i < size) return i;
    return reflect ? mirrored(i, size) : -1;
  }
  // The same for its weight: a zero that padding adds weighs as the voxel next to it, or not at all.
  int64_t weight_source(int64_t i) const { return zeros_weigh ? larger(0, smaller(i, size - 1)) : source(i); }
  // The same for a map of the positions, whose adjoint doubles the edges of what is reflected (edge).
  int64_t map_source(int64_t i) const {
    i = source(i);
    return i >= 0 && has_position(i) ? i : -1;
  }
  double edge(int64_t i) const { return reflect && (i == 0 || i == size - 1) ? 0.5 : 1; }
};

inline Side side_of(const VolumeProblem& p, int which, int64_t part, int64_t parts) {
  Side s{};
  s.size = p.size[which], s.r = p.windows[which].radius;
  s.crop = p.padding == Padding::valid ? s.r : 0;
  s.begin = s.size * part / parts, s.end = s.size * (part + 1) / parts;
  const int64_t margin = p.gains ? s.r : 0;
  s.first = larger(s.crop, s.begin - margin), s.last = smaller(s.size - s.crop, s.end + margin);
  s.from = larger(0, s.first - s.r), s.to = smaller(s.size, s.last + s.r);
  s.reflect = p.padding == Padding::reflect, s.zeros_weigh = p.padding == Padding::zeros;
  return s;
}
