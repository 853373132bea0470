/* A wall clock that is wrong: CLOCK_REALTIME is ahead by the seconds in the file $CLOCK_OFFSET, a long. Other clocks
   and all sleeps are those of the machine. Preloaded; declared by hand, so that no headers are needed. */
struct timespec { long seconds, nanoseconds; };
struct timeval { long seconds, microseconds; };
void *dlsym(void *, const char *);
char *getenv(const char *);
int open(const char *, int, ...);
void *mmap(void *, unsigned long, int, int, int, long);

static volatile long *offset;

int clock_gettime(int clock, struct timespec *time) {
    static int (*real)(int, struct timespec *);
    if (!real) {
        offset = mmap(0, 8, 1, 1, open(getenv("CLOCK_OFFSET"), 0), 0); /* PROT_READ, MAP_SHARED */
        real = dlsym((void *)-1, "clock_gettime"); /* RTLD_NEXT */
    }
    int result = real(clock, time);
    if (clock == 0 && result == 0) time->seconds += *offset;
    return result;
}

int gettimeofday(struct timeval *time, void *zone) {
    struct timespec now;
    clock_gettime(0, &now);
    time->seconds = now.seconds;
    time->microseconds = now.nanoseconds / 1000;
    return 0;
}

long time(long *result) {
    struct timespec now;
    clock_gettime(0, &now);
    if (result) *result = now.seconds;
    return now.seconds;
}
