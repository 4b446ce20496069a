/* Log, or let fail, every call that changes files below one directory. LD_PRELOAD of a test.
 *
 * Law: calls are logged in the order in which they happened, with their bytes, after they succeeded;
 * one lock is held from the call to its entry. Each changing call has a number, counted from 0; the
 * calls [fail_from, fail_to) are not made but answered with an error. A call that the model does not
 * know (a link, a preallocation, a vectored write) ends the process, so that none goes unseen.
 *
 * WEIR_RECORD_DIR: absolute path of the directory. WEIR_RECORD_LOG: file of the log, may be unset.
 * Opening the path "<directory>/mark:<text>" changes nothing and puts the text into the log.
 *
 * Entry: kind, fd, flag (u32 each), offset, path bytes, second path bytes, data bytes (u64 each),
 * then path, second path, data. Host byte order. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { OPEN = 1, CLOSE, WRITE, TRUNCATE, SYNC, RENAME, UNLINK, MKDIR, RMDIR, MARK };

#define FDS 65536
#define NOT_OURS 0
#define A_FILE 1
#define A_FOLDER 2

static char ours[FDS];
static char appends[FDS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *directory;
static size_t directory_bytes;
static int log_fd = -1;
static int ready;
static long number, fail_from = -1, fail_to = -1;
static int fail_errno = EIO;

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (!found)
        abort();
    return found;
}

static void die(const char *what)
{
    (void)!syscall(SYS_write, 2, what, strlen(what));
    (void)!syscall(SYS_write, 2, "\n", 1);
    _exit(97);
}

__attribute__((constructor)) static void start(void)
{
    directory = getenv("WEIR_RECORD_DIR");
    if (!directory)
        return;
    directory_bytes = strlen(directory);
    const char *path = getenv("WEIR_RECORD_LOG");
    if (path)
        log_fd = (int)syscall(SYS_openat, AT_FDCWD, path,
                              O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    ready = 1;
}

/* For the driver, through ctypes. */
void recorder_fail(long from, long count, int error)
{
    pthread_mutex_lock(&lock);
    number = 0;
    fail_from = from;
    fail_to = from + count;
    fail_errno = error;
    pthread_mutex_unlock(&lock);
}

long recorder_number(void)
{
    return number;
}

static int below(const char *path)
{
    if (!ready || !path || strncmp(path, directory, directory_bytes))
        return 0;
    return path[directory_bytes] == '/' || !path[directory_bytes];
}

static int is_ours(int fd)
{
    return ready && fd >= 0 && fd < FDS && ours[fd];
}

static void all(const void *data, size_t size)
{
    const char *at = data;
    while (size) {
        long taken = syscall(SYS_write, log_fd, at, size);
        if (taken <= 0)
            die("recorder: the log cannot be written");
        at += taken;
        size -= (size_t)taken;
    }
}

static void entry(enum kind kind, int fd, int flag, uint64_t offset, const char *path,
                  const char *second, const void *data, size_t size)
{
    if (log_fd < 0)
        return;
    int saved = errno;
    uint32_t head[4] = {kind, (uint32_t)fd, (uint32_t)flag, 0};
    uint64_t sizes[4] = {offset, path ? strlen(path) : 0, second ? strlen(second) : 0, size};
    all(head, sizeof head);
    all(sizes, sizeof sizes);
    all(path ? path : "", sizes[1]);
    all(second ? second : "", sizes[2]);
    all(data ? data : "", size);
    errno = saved;
}

/* Whether the next changing call is to fail; the lock is held. */
static int fails(void)
{
    long this = number++;
    if (this < fail_from || this >= fail_to)
        return 0;
    errno = fail_errno;
    return 1;
}

static int opened(int at, const char *path, int flags, mode_t mode)
{
    if (!below(path))
        return (int)syscall(SYS_openat, at, path, flags, mode);
    const char *name = path + directory_bytes;
    if (!strncmp(name, "/mark:", 6)) {
        pthread_mutex_lock(&lock);
        entry(MARK, 0, 0, 0, name + 6, 0, 0, 0);
        pthread_mutex_unlock(&lock);
        errno = ENOENT;
        return -1;
    }
    struct stat state;
    pthread_mutex_lock(&lock);
    int created = (flags & O_CREAT) && stat(path, &state) < 0;
    int fd = -1;
    if (!((created || (flags & O_TRUNC)) && fails()))
        fd = (int)syscall(SYS_openat, at, path, flags, mode);
    if (fd >= 0) {
        if (fd >= FDS)
            die("recorder: too many files");
        ours[fd] = !fstat(fd, &state) && S_ISDIR(state.st_mode) ? A_FOLDER : A_FILE;
        appends[fd] = (flags & O_APPEND) != 0;
        entry(OPEN, fd, (created ? 1 : 0) | (flags & O_TRUNC ? 2 : 0) | (ours[fd] == A_FOLDER ? 4 : 0),
              0, path, 0, 0, 0);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

#define OPENER(name)                                                                              \
    int name(const char *path, int flags, ...)                                                    \
    {                                                                                             \
        va_list list;                                                                             \
        va_start(list, flags);                                                                    \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0;                   \
        va_end(list);                                                                             \
        return opened(AT_FDCWD, path, flags, mode);                                               \
    }
OPENER(open)
OPENER(open64)

#define OPENER_AT(name)                                                                           \
    int name(int at, const char *path, int flags, ...)                                            \
    {                                                                                             \
        va_list list;                                                                             \
        va_start(list, flags);                                                                    \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0;                   \
        va_end(list);                                                                             \
        return opened(at, path, flags, mode);                                                     \
    }
OPENER_AT(openat)
OPENER_AT(openat64)

int __open_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int __openat_2(int at, const char *path, int flags) { return opened(at, path, flags, 0); }
int __openat64_2(int at, const char *path, int flags) { return opened(at, path, flags, 0); }

int close(int fd)
{
    if (!is_ours(fd))
        return (int)syscall(SYS_close, fd);
    pthread_mutex_lock(&lock);
    ours[fd] = NOT_OURS;
    entry(CLOSE, fd, 0, 0, 0, 0, 0, 0);
    int result = (int)syscall(SYS_close, fd);
    pthread_mutex_unlock(&lock);
    return result;
}

static ssize_t written(int fd, const void *data, size_t size, int64_t offset)
{
    struct stat state;
    pthread_mutex_lock(&lock);
    ssize_t taken = -1;
    int positioned = offset >= 0;
    if (!fails()) {
        if (appends[fd])
            offset = fstat(fd, &state) ? 0 : state.st_size;
        else if (!positioned)
            offset = lseek(fd, 0, SEEK_CUR);
        taken = positioned ? syscall(SYS_pwrite64, fd, data, size, offset)
                           : syscall(SYS_write, fd, data, size);
        if (taken > 0)
            entry(WRITE, fd, 0, (uint64_t)offset, 0, 0, data, (size_t)taken);
    }
    pthread_mutex_unlock(&lock);
    return taken;
}

ssize_t write(int fd, const void *data, size_t size)
{
    return is_ours(fd) ? written(fd, data, size, -1) : syscall(SYS_write, fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    return is_ours(fd) ? written(fd, data, size, offset)
                       : syscall(SYS_pwrite64, fd, data, size, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    return pwrite(fd, data, size, offset);
}

int ftruncate(int fd, off_t size)
{
    if (!is_ours(fd))
        return (int)syscall(SYS_ftruncate, fd, size);
    pthread_mutex_lock(&lock);
    int result = fails() ? -1 : (int)syscall(SYS_ftruncate, fd, size);
    if (!result)
        entry(TRUNCATE, fd, 0, (uint64_t)size, 0, 0, 0, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }

static int synced(int fd, long call)
{
    if (!is_ours(fd))
        return (int)syscall(call, fd);
    pthread_mutex_lock(&lock);
    int result = fails() ? -1 : (int)syscall(call, fd);
    if (!result)
        entry(SYNC, fd, 0, 0, 0, 0, 0, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

static int named(enum kind kind, long (*call)(const char *, const char *, mode_t), const char *path,
                 const char *second, mode_t mode)
{
    pthread_mutex_lock(&lock);
    int result = fails() ? -1 : (int)call(path, second, mode);
    if (!result)
        entry(kind, 0, 0, 0, path, second, 0, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

static long call_rename(const char *path, const char *second, mode_t mode)
{
    (void)mode;
    return syscall(SYS_renameat2, AT_FDCWD, path, AT_FDCWD, second, 0);
}

static long call_unlink(const char *path, const char *second, mode_t mode)
{
    (void)second, (void)mode;
    return syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

static long call_rmdir(const char *path, const char *second, mode_t mode)
{
    (void)second, (void)mode;
    return syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
}

static long call_mkdir(const char *path, const char *second, mode_t mode)
{
    (void)second;
    return syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

int rename(const char *path, const char *second)
{
    if (below(path) != below(second))
        die("recorder: a rename across the border");
    return below(path) ? named(RENAME, call_rename, path, second, 0)
                       : (int)call_rename(path, second, 0);
}

int unlink(const char *path)
{
    return below(path) ? named(UNLINK, call_unlink, path, 0, 0) : (int)call_unlink(path, 0, 0);
}

int rmdir(const char *path)
{
    return below(path) ? named(RMDIR, call_rmdir, path, 0, 0) : (int)call_rmdir(path, 0, 0);
}

int mkdir(const char *path, mode_t mode)
{
    struct stat state;
    if (below(path) && stat(path, &state) < 0)
        return named(MKDIR, call_mkdir, path, 0, mode);
    return (int)call_mkdir(path, 0, mode);
}

/* What the model does not know. */
ssize_t writev(int fd, const struct iovec *parts, int count)
{
    if (is_ours(fd))
        die("recorder: writev");
    return syscall(SYS_writev, fd, parts, count);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    if (is_ours(fd))
        die("recorder: pwritev");
    return REAL(pwritev)(fd, parts, count, offset);
}

int fallocate(int fd, int mode, off_t offset, off_t size)
{
    if (is_ours(fd))
        die("recorder: fallocate");
    return (int)syscall(SYS_fallocate, fd, mode, offset, size);
}

int posix_fallocate(int fd, off_t offset, off_t size)
{
    if (is_ours(fd))
        die("recorder: posix_fallocate");
    return REAL(posix_fallocate)(fd, offset, size);
}

int link(const char *path, const char *second)
{
    if (below(path) || below(second))
        die("recorder: link");
    return (int)syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, second, 0);
}

int truncate(const char *path, off_t size)
{
    if (below(path))
        die("recorder: truncate");
    return (int)syscall(SYS_truncate, path, size);
}

int dup(int fd)
{
    if (is_ours(fd))
        die("recorder: dup");
    return (int)syscall(SYS_dup, fd);
}
