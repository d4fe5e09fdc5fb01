/*
 * load: a load generator that is never the bottleneck, and does not flatter.
 *
 * One thread, one epoll, keep-alive connections. With --rate 0 each connection
 * sends its next request when the last was answered (closed loop). Otherwise
 * requests are due at a constant rate and latency counts from the moment one
 * was due, so a stall is charged to every request it delayed (no coordinated
 * omission).
 *
 *   load --port P --body FILE [--path /v1/chat/completions] [--header "Name: value"]...
 *        [--connections 32] [--seconds 3] [--warmup 1] [--rate 0] [--requests N]
 *
 * Twelve @ in a row in the body become the number of the request, so that no two
 * are the same.
 *
 * --requests ends the run after so many answers, all of which count; no warm-up.
 * SIGTERM ends the window early, for a run that lasts as long as something else.
 * Prints one line of JSON: times in microseconds, `answered` the answers of the
 * whole run (warm-up included, for CPU per request), `events` those of streams.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_LIMIT = 16384, BATCH = 512, READ_SIZE = 1 << 18 };

/* Where in an answer a connection is. The CHUNK states read chunked coding (RFC 9112, 7.1). */
enum place { IDLE, HEAD, BODY, CHUNK_SIZE, CHUNK_EXTENSION, CHUNK_DATA, CHUNK_END, TRAILER_START, TRAILER_LINE };

struct connection {
    int fd;
    enum place place;
    char head[HEAD_LIMIT];
    size_t head_size;
    int status;
    long left;        /* bytes left of the body or the chunk */
    int matched;      /* letters of "data: " seen, for counting events */
    int64_t due_ns, first_byte_ns;
};

/* Times in tenths of a microsecond; grows as needed. */
struct samples { uint32_t *values; size_t count, capacity; };

static int port, connection_count = 32;
static double seconds = 3, warmup = 1, rate;
static long request_limit, issued;
static struct connection *connections;
static struct connection **idle;
static int idle_count, epoll_fd;
static char *request;
static size_t request_size;
static char *numbered; /* where the request's number goes; NULL when all are the same */
static long first_number; /* of the time, so that a second run asks nothing twice either */
static int64_t start_ns, window_start_ns, window_end_ns;
static struct samples latency, first_byte;
static long answered, failed, events_all, events_in_window;
static bool is_in_window;
static char first_fault[200];
static volatile sig_atomic_t is_asked_to_end;

static int64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void fault(const char *text, const char *detail)
{
    failed++;
    if (!*first_fault)
        snprintf(first_fault, sizeof first_fault, "%s %.150s", text, detail);
}

static void add_sample(struct samples *samples, int64_t ns)
{
    if (samples->count == samples->capacity) {
        samples->capacity = samples->capacity ? samples->capacity * 2 : 1 << 16;
        samples->values = realloc(samples->values, samples->capacity * sizeof *samples->values);
        if (!samples->values)
            die("load: memory");
    }
    samples->values[samples->count++] = (uint32_t)(ns / 100);
}

/* ---- sending ---- */

static void open_connection(struct connection *c)
{
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    c->place = IDLE;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address))
        die("load: connect");
    struct epoll_event watch = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &watch);
}

static void reopen(struct connection *c)
{
    close(c->fd);
    open_connection(c);
}

static void send_request(struct connection *c, int64_t due_ns)
{
    size_t sent = 0;
    if (numbered) {
        long number = first_number + issued;
        for (int i = 11; i >= 0; i--, number /= 10)
            numbered[i] = (char)('0' + number % 10);
    }
    while (sent < request_size) {
        ssize_t size = send(c->fd, request + sent, request_size - sent, MSG_NOSIGNAL);
        if (size <= 0) {
            fault("cannot send", strerror(errno));
            reopen(c);
            sent = 0;
            continue;
        }
        sent += (size_t)size;
    }
    c->place = HEAD;
    c->head_size = 0;
    c->matched = 0;
    c->due_ns = due_ns;
    c->first_byte_ns = 0;
    issued++;
}

static void next_request(struct connection *c)
{
    c->place = IDLE;
    if (rate > 0)
        idle[idle_count++] = c;
    else if (now_ns() < window_end_ns && (!request_limit || issued < request_limit))
        send_request(c, now_ns());
}

/* Send what is due by now; the wait until the next one, at most 50 ms. */
static int64_t send_due(int64_t now)
{
    const int64_t longest = 50000000;
    while (rate > 0 && idle_count) {
        int64_t due = start_ns + (int64_t)((double)issued * 1e9 / rate);
        if (due > window_end_ns || (request_limit && issued >= request_limit))
            return longest;
        if (due > now)
            return due - now < longest ? due - now : longest;
        send_request(idle[--idle_count], due);
    }
    return longest;
}

/* ---- reading ---- */

static void finish(struct connection *c)
{
    int64_t now = now_ns();
    if (c->status != 200) {
        fault("status", c->head);
    } else {
        answered++;
        if (now >= window_start_ns && now <= window_end_ns) {
            add_sample(&latency, now - c->due_ns);
            add_sample(&first_byte, c->first_byte_ns - c->due_ns);
        }
    }
    next_request(c);
}

static void read_body(struct connection *c, const char *bytes, size_t size)
{
    static const char mark[] = "data: ";
    const char *end = bytes + size;
    if (!c->first_byte_ns && size)
        c->first_byte_ns = now_ns();
    while (bytes < end) {
        if (c->matched == 0 && !(bytes = memchr(bytes, 'd', (size_t)(end - bytes))))
            return;
        c->matched = *bytes++ == mark[c->matched] ? c->matched + 1 : 0;
        if (c->matched == (int)sizeof mark - 1) {
            c->matched = 0;
            events_all++;
            events_in_window += is_in_window;
        }
    }
}

/* Bytes of the head that were in `bytes`; the place moves on when the head is complete. */
static size_t read_head(struct connection *c, const char *bytes, size_t size)
{
    size_t before = c->head_size, room = HEAD_LIMIT - 1 - before;
    memcpy(c->head + before, bytes, size < room ? size : room);
    c->head_size += size < room ? size : room;
    c->head[c->head_size] = 0;
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end) {
        if (c->head_size == HEAD_LIMIT - 1)
            die("load: an answer's head is too large");
        return size;
    }
    size_t used = (size_t)(end + 4 - c->head) - before;
    *end = 0;
    c->status = atoi(c->head + 9);
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    if (strcasestr(c->head, "\r\ntransfer-encoding: chunked")) {
        c->place = CHUNK_SIZE;
        c->left = 0;
    } else {
        c->place = BODY;
        c->left = length ? atol(length + 17) : 0;
        if (!c->left) {
            c->first_byte_ns = now_ns();
            finish(c);
        }
    }
    return used;
}

static size_t read_part(struct connection *c, const char *bytes, size_t size, enum place after)
{
    size_t part = size < (size_t)c->left ? size : (size_t)c->left;
    read_body(c, bytes, part);
    c->left -= (long)part;
    if (!c->left)
        c->place = after;
    return part;
}

static void read_framing(struct connection *c, char byte)
{
    switch (c->place) {
    case CHUNK_SIZE:
        if (byte == '\n')
            c->place = c->left ? CHUNK_DATA : TRAILER_START;
        else if (byte == ';')
            c->place = CHUNK_EXTENSION;
        else if (byte != '\r')
            c->left = c->left * 16 + (byte <= '9' ? byte - '0' : (byte | 32) - 'a' + 10);
        break;
    case CHUNK_EXTENSION:
        if (byte == '\n')
            c->place = c->left ? CHUNK_DATA : TRAILER_START;
        break;
    case CHUNK_END:
        if (byte == '\n')
            c->place = CHUNK_SIZE;
        break;
    case TRAILER_START:
        if (byte == '\n')
            finish(c);
        else if (byte != '\r')
            c->place = TRAILER_LINE;
        break;
    case TRAILER_LINE:
        if (byte == '\n')
            c->place = TRAILER_START;
        break;
    default:
        break;
    }
}

static void feed(struct connection *c, const char *bytes, size_t size)
{
    while (size && c->place != IDLE) {
        size_t used = 1;
        if (c->place == HEAD)
            used = read_head(c, bytes, size);
        else if (c->place == CHUNK_DATA)
            used = read_part(c, bytes, size, CHUNK_END);
        else if (c->place == BODY) {
            used = read_part(c, bytes, size, BODY);
            if (!c->left)
                finish(c);
        } else
            read_framing(c, *bytes);
        bytes += used;
        size -= used;
    }
}

static void on_readable(struct connection *c)
{
    static char bytes[READ_SIZE];
    ssize_t size = recv(c->fd, bytes, sizeof bytes, 0);
    if (size > 0) {
        feed(c, bytes, (size_t)size);
        return;
    }
    bool was_busy = c->place != IDLE;
    reopen(c);
    if (was_busy) {
        fault("the connection was closed", "");
        next_request(c);
    }
}

/* ---- the run ---- */

static void on_term(int number)
{
    (void)number;
    is_asked_to_end = 1;
}

static bool is_over(int64_t now)
{
    if (request_limit)
        return answered + failed >= request_limit;
    /* At a constant rate, the last ones due get half a second more. */
    return now >= window_end_ns + (rate > 0 ? 500000000LL : 0);
}

static void run(void)
{
    struct epoll_event events[BATCH];
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    connections = calloc((size_t)connection_count, sizeof *connections);
    idle = calloc((size_t)connection_count, sizeof *idle);
    for (int i = 0; i < connection_count; i++)
        open_connection(&connections[i]);
    start_ns = now_ns();
    window_start_ns = start_ns + (request_limit ? 0 : (int64_t)(warmup * 1e9));
    window_end_ns = request_limit ? INT64_MAX : window_start_ns + (int64_t)(seconds * 1e9);
    for (int i = 0; i < connection_count; i++)
        next_request(&connections[i]);
    for (;;) {
        int64_t now = now_ns();
        if (is_asked_to_end && now < window_end_ns) {
            window_end_ns = now;
            seconds = (double)(now - window_start_ns) / 1e9;
        }
        is_in_window = now >= window_start_ns && now < window_end_ns;
        if (is_over(now))
            return;
        int64_t wait = send_due(now);
        struct timespec until = {0, wait};
        int count = epoll_pwait2(epoll_fd, events, BATCH, &until, NULL);
        for (int i = 0; i < count; i++)
            on_readable(events[i].data.ptr);
    }
}

static void make_request(const char *path, const char *headers, const char *body_file)
{
    FILE *file = fopen(body_file, "rb");
    if (!file)
        die(body_file);
    fseek(file, 0, SEEK_END);
    size_t body_size = (size_t)ftell(file);
    rewind(file);
    int head = asprintf(&request,
                        "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
                        "Accept: application/json\r\nUser-Agent: pilothouse-bench\r\n%sContent-Length: %zu\r\n\r\n",
                        path, port, headers, body_size);
    if (head < 0)
        die("asprintf");
    request_size = (size_t)head + body_size;
    request = realloc(request, request_size);
    if (fread(request + head, 1, body_size, file) != body_size)
        die(body_file);
    first_number = (long)(now_ns() / 1000);
    numbered = memmem(request + head, body_size, "@@@@@@@@@@@@", 12);
    fclose(file);
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double percentile(const struct samples *samples, double part)
{
    return samples->count ? samples->values[(size_t)((double)(samples->count - 1) * part)] / 10.0 : 0;
}

static void print_result(void)
{
    double window = request_limit ? (double)(now_ns() - window_start_ns) / 1e9 : seconds;
    for (char *c = first_fault; *c; c++)
        if (*c == '"' || *c == '\\' || (unsigned char)*c < 32)
            *c = ' ';
    qsort(latency.values, latency.count, sizeof *latency.values, by_value);
    qsort(first_byte.values, first_byte.count, sizeof *first_byte.values, by_value);
    printf("{\"count\":%zu,\"answered\":%ld,\"failed\":%ld,\"rate\":%.1f,", latency.count, answered, failed,
           (double)latency.count / window);
    printf("\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,", percentile(&latency, 0.5),
           percentile(&latency, 0.9), percentile(&latency, 0.99), percentile(&latency, 0.999));
    printf("\"first_byte_p50_us\":%.1f,\"first_byte_p95_us\":%.1f,\"first_byte_p99_us\":%.1f,",
           percentile(&first_byte, 0.5), percentile(&first_byte, 0.95), percentile(&first_byte, 0.99));
    printf("\"events\":%ld,\"event_rate\":%.1f,\"fault\":\"%s\"}\n", events_all, (double)events_in_window / window,
           first_fault);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"port", required_argument, 0, 'p'},     {"body", required_argument, 0, 'b'},
        {"path", required_argument, 0, 'u'},     {"header", required_argument, 0, 'h'},
        {"seconds", required_argument, 0, 's'},  {"connections", required_argument, 0, 'c'},
        {"warmup", required_argument, 0, 'w'},   {"rate", required_argument, 0, 'r'},
        {"requests", required_argument, 0, 'n'}, {0}};
    const char *body = NULL, *path = "/v1/chat/completions";
    char headers[4096] = "";
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        size_t used = strlen(headers);
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'b': body = optarg; break;
        case 'u': path = optarg; break;
        case 'h': snprintf(headers + used, sizeof headers - used, "%s\r\n", optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'c': connection_count = atoi(optarg); break;
        case 'w': warmup = atof(optarg); break;
        case 'r': rate = atof(optarg); break;
        case 'n': request_limit = atol(optarg); break;
        default: return 2;
        }
    }
    if (port <= 0 || !body || connection_count < 1) {
        fputs("usage: load --port P --body FILE [options]; they stand at the head of load.c\n", stderr);
        return 2;
    }
    make_request(path, headers, body);
    signal(SIGTERM, on_term);
    run();
    print_result();
}
