/*
 * The clocks of a virtual machine that was paused: for every process that loads this, time stood still for as long as the file says (nanoseconds, one
 * signed 64-bit number at its beginning). The lab loads it into all processes of a host, stops them, adds the time that they were stopped, and lets them
 * go on. Kernel time-outs that are relative end early instead, and who waits looks at the clock again.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static int64_t *stopped;

static int64_t paused_ns(void) {
  if (stopped == NULL) {
    int fd = (int)syscall(SYS_openat, AT_FDCWD, PAUSE_FILE, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    void *page = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (page == MAP_FAILED) return 0;
    stopped = page;
  }
  return __atomic_load_n(stopped, __ATOMIC_SEQ_CST);
}

static void add_ns(struct timespec *at, int64_t ns) {
  int64_t sum = (int64_t)at->tv_sec * 1000000000 + at->tv_nsec + ns;
  at->tv_sec = sum / 1000000000;
  at->tv_nsec = sum % 1000000000;
}

/* Clocks of processes and threads count work, and stand still by themselves. */
static int counts_time(clockid_t clock) {
  switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_REALTIME_COARSE:
    case CLOCK_MONOTONIC_COARSE:
    case CLOCK_BOOTTIME:
      return 1;
    default:
      return 0;
  }
}

int clock_gettime(clockid_t clock, struct timespec *at) {
  int result = (int)syscall(SYS_clock_gettime, clock, at);
  if (result == 0 && counts_time(clock)) add_ns(at, -paused_ns());
  return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  (void)zone;
  struct timespec now;
  if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *at) {
  struct timespec now;
  if (clock_gettime(CLOCK_REALTIME, &now) != 0) return (time_t)-1;
  if (at != NULL) *at = now.tv_sec;
  return now.tv_sec;
}

/* Absolute deadlines were made from the clocks above; the kernel counts by its own. */
int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until) {
  static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
  if (real == NULL) real = (int (*)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *))dlsym(RTLD_NEXT, "pthread_cond_timedwait");
  struct timespec at = *until;
  add_ns(&at, paused_ns());
  return real(condition, mutex, &at);
}

/* /proc/uptime is CLOCK_BOOTTIME as text; it is opened once and read from its beginning. */
#define MOST_FILES 65536
static char is_uptime[MOST_FILES];

static int note(const char *path, int fd) {
  if (fd >= 0 && fd < MOST_FILES) is_uptime[fd] = path != NULL && strcmp(path, "/proc/uptime") == 0;
  return fd;
}

static mode_t mode_of(int flags, mode_t mode) {
  return (flags & (O_CREAT | O_TMPFILE)) != 0 ? mode : 0;
}

int open(const char *path, int flags, ...) {
  __builtin_va_list rest;
  __builtin_va_start(rest, flags);
  mode_t mode = mode_of(flags, __builtin_va_arg(rest, mode_t));
  __builtin_va_end(rest);
  return note(path, (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}

int open64(const char *path, int flags, ...) {
  __builtin_va_list rest;
  __builtin_va_start(rest, flags);
  mode_t mode = mode_of(flags, __builtin_va_arg(rest, mode_t));
  __builtin_va_end(rest);
  return note(path, (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_LARGEFILE, mode));
}

static ssize_t corrected(int fd, char *text, ssize_t length, size_t room) {
  if (fd < 0 || fd >= MOST_FILES || !is_uptime[fd] || length <= 0 || (size_t)length >= room) return length;
  text[length] = '\0';
  int written = snprintf(text, room, "%.2f 0.00\n", strtod(text, NULL) - (double)paused_ns() / 1e9);
  return written < 0 || (size_t)written >= room ? length : written;
}

ssize_t pread64(int fd, void *to, size_t count, off64_t at) {
  return corrected(fd, to, syscall(SYS_pread64, fd, to, count, at), count);
}

ssize_t pread(int fd, void *to, size_t count, off_t at) {
  return pread64(fd, to, count, at);
}

ssize_t preadv64(int fd, const struct iovec *parts, int count, off64_t at) {
  if (count == 1) return pread64(fd, parts[0].iov_base, parts[0].iov_len, at);
  return syscall(SYS_preadv, fd, parts, count, at, 0);
}

ssize_t preadv(int fd, const struct iovec *parts, int count, off_t at) {
  return preadv64(fd, parts, count, at);
}
