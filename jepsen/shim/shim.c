/* What the runner of real processes puts before the C library of a member: fsyncs that are slow or fail, and a wall
 * clock that lies. The runner writes the wishes into a file that is mapped here; shim.rs knows the same layout. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct control {
    /* Written by the runner. */
    _Atomic int64_t fsync_delay_us;
    _Atomic int64_t fsyncs_to_fail; /* so many of the next ones */
    _Atomic int64_t clock_offset_ns;
    _Atomic int64_t clock_rate_ppm; /* added to a rate of 1 from clock_base_ns on */
    _Atomic int64_t clock_base_ns;
    /* Written here. */
    _Atomic int64_t fsyncs_slowed;
    _Atomic int64_t fsyncs_failed;
    _Atomic int64_t clocks_told;
};

static struct control none;
static struct control *control = &none;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("MECHI_JEPSEN_SHIM");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED) control = mapped;
}

/* Returns whether this fsync is to fail; waits before, if it is to be slow. */
static int disturbed(void) {
    int64_t delay = atomic_load(&control->fsync_delay_us);
    if (delay > 0) {
        struct timespec wait = {delay / 1000000, delay % 1000000 * 1000};
        atomic_fetch_add(&control->fsyncs_slowed, 1);
        while (nanosleep(&wait, &wait) != 0 && errno == EINTR) {
        }
    }
    int64_t left = atomic_load(&control->fsyncs_to_fail);
    while (left > 0)
        if (atomic_compare_exchange_weak(&control->fsyncs_to_fail, &left, left - 1)) {
            atomic_fetch_add(&control->fsyncs_failed, 1);
            errno = EIO;
            return 1;
        }
    return 0;
}

int fsync(int file) { return disturbed() ? -1 : (int)syscall(SYS_fsync, file); }

int fdatasync(int file) { return disturbed() ? -1 : (int)syscall(SYS_fdatasync, file); }

/* What the wall clock is said to show. */
static void lie(struct timespec *told) {
    int64_t offset = atomic_load(&control->clock_offset_ns), rate = atomic_load(&control->clock_rate_ppm);
    if (offset == 0 && rate == 0) return;
    int64_t now = (int64_t)told->tv_sec * 1000000000 + told->tv_nsec;
    now += offset + (int64_t)((__int128)(now - atomic_load(&control->clock_base_ns)) * rate / 1000000);
    told->tv_sec = now / 1000000000;
    told->tv_nsec = now % 1000000000;
    atomic_fetch_add(&control->clocks_told, 1);
}

int clock_gettime(clockid_t clock, struct timespec *told) {
    static _Atomic(int (*)(clockid_t, struct timespec *)) real;
    static _Thread_local int looks;
    int (*call)(clockid_t, struct timespec *) = atomic_load(&real);
    if (!call && !looks) {
        looks = 1; /* The search may ask for the time itself. */
        call = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
        atomic_store(&real, call);
        looks = 0;
    }
    int done = call ? call(clock, told) : (int)syscall(SYS_clock_gettime, clock, told);
    if (done == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) lie(told);
    return done;
}

time_t time(time_t *told) {
    struct timespec now = {0, 0};
    clock_gettime(CLOCK_REALTIME, &now);
    if (told) *told = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict told, void *restrict zone) {
    (void)zone;
    struct timespec now = {0, 0};
    clock_gettime(CLOCK_REALTIME, &now);
    told->tv_sec = now.tv_sec;
    told->tv_usec = now.tv_nsec / 1000;
    return 0;
}
