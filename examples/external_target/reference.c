/* A remapping unit in thirty lines: legacy mode, second stage, no caches. Build with
   cc -shared -fPIC -o reference.so reference.c ; -DBUGGY forgets to check write permission. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#define SIZE 0x4000000u
struct unit { uint64_t cap, rtaddr, root; uint32_t haw, command; uint8_t memory[SIZE]; };
void *vtd_new(uint32_t v, uint64_t cap, uint64_t ecap, uint32_t haw) {
  struct unit *u = calloc(1, sizeof *u); (void)v; (void)ecap; if (u) u->cap = cap, u->haw = haw; return u; }
void vtd_free(void *u) { free(u); }
void vtd_add_memory(void *u, uint64_t start, uint64_t length) { (void)u; (void)start; (void)length; }
static uint8_t *at(struct unit *u, uint64_t a, uint64_t n) {
  return a < SIZE && n <= SIZE - a && !(a >= 0xa0000 && a < 0x100000) ? u->memory + a : 0; }
static uint64_t word(struct unit *u, uint64_t a) { uint64_t w = 0; uint8_t *p = at(u, a, 8); if (p) memcpy(&w, p, 8); return w; }
void vtd_store(void *u, uint64_t a, const char *data, uint64_t n) { uint8_t *p = at(u, a, n); if (p) memcpy(p, data, n); }
int vtd_read_register(void *u, uint32_t o, uint32_t n, uint64_t *v) { (void)u; (void)o; (void)n; (void)v; return 0; }
void vtd_write_register(void *h, uint32_t offset, uint32_t size, uint64_t value) {
  struct unit *u = h; (void)size;
  if (offset == 0x20) u->rtaddr = value;
  if (offset == 0x18) { if (value >> 30 & 1) u->root = u->rtaddr; u->command = value; } }
static int translate(struct unit *u, uint32_t sid, uint64_t a, int write, uint64_t *out) {
  uint64_t high = ~0ull << u->haw, limit = (u->cap >> 16 & 63) + 1, rights = 3;
  uint64_t root = word(u, (u->root & ~0xfffull) + (sid >> 8) * 16), rest = word(u, (u->root & ~0xfffull) + (sid >> 8) * 16 + 8);
  if (!(root & 1) || root & (high | 0xffe) || rest) return 0;
  uint64_t ce = (root & ~0xfffull) + (sid & 255) * 16, low = word(u, ce), top = word(u, ce + 8), aw = top & 7, tt = low >> 2 & 3;
  if (!(low & 1) || low & (high | 0xff0) || top & ~0xffff7full || tt == 3 || tt == 1 || !(aw && u->cap >> (8 + aw) & 1)) return 0;
  *out = a;
  if (tt == 2) return !(a & high);
  if (30 + 9 * aw < limit) limit = 30 + 9 * aw;
  if (a >> limit) return 0;
  uint64_t table = low & ~0xfffull, e;
  for (int level = aw + 2;; level--, table = e & 0xffffffffff000ull) {
    int shift = 12 + 9 * (level - 1), page = level == 1;
    e = word(u, table + (a >> shift & 511) * 8); rights &= e;
    if (!rights) return 0;
    if (level > 1 && level < 4 && e & 0x80) page = 1;
    if ((e & high & 0xfffffffffffffull) || e >> 62 & 1 || e & 0x800 || (level > 3 && e & 0x80)) return 0;
    if (page && level > 1 && (e & ((1ull << shift) - 0x1000) || !(u->cap >> (32 + level) & 1))) return 0;
    if (page) { *out = (e & 0xffffffffff000ull) + (a & ((1ull << shift) - 1)); break; } }
#ifdef BUGGY
  write = 0;
#endif
  return rights >> write & 1 && !(*out >= 0xfee00000 && *out < 0xfef00000); }
int vtd_dma(void *h, uint32_t sid, uint32_t pasid, uint64_t address, int write, void *data, uint64_t n) {
  struct unit *u = h; uint64_t to = address; uint8_t *p;
  if (pasid != 0xffffffff || (address >= 0xfee00000 && address < 0xfef00000)) return 0;
  if (u->command >> 31 && !translate(u, sid, address, write, &to)) return 0;
  if (!(p = at(u, to, n))) return 0;
  memcpy(write ? (void *)p : data, write ? data : (void *)p, n);
  return 1; }
