/* The job of stamper is: to be the one program of the lab's guest that proves what a disk kept.
 *
 * The stamp area is the whole of /dev/vda in blocks of 4 KiB. Stamp n lives in block n - 1 and
 * holds its own number, the nonce of the boot that wrote it and a checksum over the block. At boot
 * the whole area is read and judged; then stamps are written in order for ever, each with O_DIRECT
 * and fsync, and only a completed one is reported.
 *
 *   BOOT vm=<name> boot=<nonce> last=<highest valid n> bad=<invalid blocks below last>
 *   STAMP boot=<nonce> n=<n>
 *   IOERROR boot=<nonce> n=<n> errno=<e>      the guest saw an error: havm must never let that
 *   happen FULL boot=<nonce> n=<n>                   the area is used up
 *   HALT boot=<nonce>                         the power button was pressed
 *
 * Takes no input but the power button (ACPI). Kernel command line: stamp_vm=NAME stamp_pace_ms=N.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/input.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { block_size = 4096, words = block_size / 8, scan_blocks = 256 };

struct stamp {
  uint64_t magic, number, boot, checksum;
  uint64_t fill[words - 4];
};

static const uint64_t magic_word = 0x31504d4154534d56ULL; /* "VMSTAMP1" */
static int serial = -1;

static void say(const char* format, ...) {
  char line[256];
  va_list args;
  va_start(args, format);
  int length = vsnprintf(line, sizeof line, format, args);
  va_end(args);
  if (serial >= 0 && write(serial, line, (size_t)length) != length) return;
}

static uint64_t mix(uint64_t hash, uint64_t word) { return (hash ^ word) * 0x100000001b3ULL; }

/* FNV-1a over 64-bit words, with a rotation so that the high bits of a word count too. */
static uint64_t checksum(const struct stamp* s) {
  uint64_t hash = 0xcbf29ce484222325ULL;
  const uint64_t* word = (const uint64_t*)s;
  for (int i = 0; i < words; i++) {
    if (i == 3) continue; /* the checksum itself */
    hash = mix(hash, word[i]);
    hash = (hash << 23) | (hash >> 41);
  }
  return hash;
}

static void make_stamp(struct stamp* s, uint64_t number, uint64_t boot) {
  s->magic = magic_word;
  s->number = number;
  s->boot = boot;
  uint64_t x = (number * 0x9e3779b97f4a7c15ULL) ^ boot;
  for (int i = 0; i < words - 4; i++) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    s->fill[i] = x;
  }
  s->checksum = checksum(s);
}

static int valid(const struct stamp* s, uint64_t number) {
  return s->magic == magic_word && s->number == number && s->checksum == checksum(s);
}

/* A guest under emulation has no entropy this early: clock and cycle counter make two boots differ.
*/
static uint64_t draw_nonce(void) {
  uint64_t seed[2] = {0, 0};
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (syscall(SYS_getrandom, seed, sizeof seed, 4 /* GRND_INSECURE */) < 0) seed[0] = 1;
  uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  uint64_t hash = mix(mix(0xcbf29ce484222325ULL, seed[0]), seed[1]);
  hash = mix(mix(hash, (uint64_t)now.tv_sec), (uint64_t)now.tv_nsec);
  return mix(hash, ((uint64_t)high << 32) | low);
}

static void option(const char* name, char* value, size_t size) {
  char line[2048];
  int fd = open("/proc/cmdline", O_RDONLY);
  ssize_t length = fd < 0 ? -1 : read(fd, line, sizeof line - 1);
  if (fd >= 0) close(fd);
  if (length <= 0) return;
  line[length] = 0;
  size_t name_length = strlen(name);
  for (char* word = strtok(line, " \n"); word; word = strtok(NULL, " \n"))
    if (!strncmp(word, name, name_length) && word[name_length] == '=')
      snprintf(value, size, "%s", word + name_length + 1);
}

struct area {
  uint64_t blocks, last, bad;
};

/* Reads and judges every block. Retries a failing read for ever: the report must be about the whole
area. */
static struct area scan(int disk, uint64_t boot) {
  struct area area = {0, 0, 0};
  uint64_t bytes = 0, invalid = 0;
  if (ioctl(disk, BLKGETSIZE64, &bytes) < 0) say("IOERROR boot=%016lx n=0 errno=%d\n", boot, errno);
  area.blocks = bytes / block_size;
  void* memory = NULL;
  if (posix_memalign(&memory, block_size, (size_t)scan_blocks * block_size)) abort();
  const struct stamp* stamps = memory;
  for (uint64_t at = 0; at < area.blocks;) {
    ssize_t got = pread(disk, memory, (size_t)scan_blocks * block_size, (off_t)(at * block_size));
    if (got < block_size) {
      say("IOERROR boot=%016lx n=%lu errno=%d\n", boot, at + 1, got < 0 ? errno : EIO);
      sleep(1);
      continue;
    }
    for (ssize_t i = 0; i < got / block_size; i++, at++) {
      if (!valid(&stamps[i], at + 1)) {
        invalid++;
        continue;
      }
      area.last = at + 1;
      area.bad = invalid;
    }
  }
  free(memory);
  return area;
}

static int open_power_button(void) {
  for (int i = 0; i < 8; i++) {
    char path[64], name[64] = "";
    snprintf(path, sizeof path, "/dev/input/event%d", i);
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    if (fd < 0) continue;
    if (ioctl(fd, EVIOCGNAME(sizeof name), name) > 0 && strstr(name, "Power Button")) return fd;
    close(fd);
  }
  return -1;
}

static void pace(int button, int milliseconds, uint64_t boot) {
  struct pollfd wait = {button, POLLIN, 0};
  if (poll(&wait, button >= 0, milliseconds) <= 0) return;
  struct input_event event;
  while (read(button, &event, sizeof event) == (ssize_t)sizeof event) {
    if (event.type != EV_KEY || event.code != KEY_POWER || event.value != 1) continue;
    say("HALT boot=%016lx\n", boot);
    usleep(100000); /* lets the line leave the serial port */
    reboot(RB_POWER_OFF);
  }
}

int main(void) {
  char vm[64] = "?", pace_text[16] = "25";
  option("stamp_vm", vm, sizeof vm);
  option("stamp_pace_ms", pace_text, sizeof pace_text);
  serial = open("/dev/ttyS0", O_WRONLY | O_NOCTTY);
  int disk;
  while ((disk = open("/dev/vda", O_RDWR | O_DIRECT)) < 0) usleep(20000);
  const uint64_t boot = draw_nonce();
  const struct area area = scan(disk, boot);
  say("\nBOOT vm=%s boot=%016lx last=%lu bad=%lu\n", vm, boot, area.last, area.bad);

  const int button = open_power_button();
  void* memory = NULL;
  if (posix_memalign(&memory, block_size, block_size)) abort();
  uint64_t number = area.last + 1;
  while (number <= area.blocks) {
    make_stamp(memory, number, boot);
    const off_t offset = (off_t)((number - 1) * block_size);
    if (pwrite(disk, memory, block_size, offset) != block_size || fsync(disk) != 0) {
      say("IOERROR boot=%016lx n=%lu errno=%d\n", boot, number, errno);
      pace(button, 1000, boot);
      continue;
    }
    say("STAMP boot=%016lx n=%lu\n", boot, number);
    number++;
    pace(button, atoi(pace_text), boot);
  }
  say("FULL boot=%016lx n=%lu\n", boot, number - 1);
  for (;;) pace(button, 1000, boot);
}
