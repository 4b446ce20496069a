// Exports all three signals with the stock OpenTelemetry SDK and says what came of it.
//
// Usage: node otlp.js grpc|proto|json ENDPOINT ROUNDS; prints one line of JSON:
// {"made": {signal: items}, "exported": {...}, "failed": {...}, "errors": [text, ...]}.
// Law: `made` counts what this program did, without asking the SDK; `exported` and `failed` count
// what the exporters told the SDK; `errors` is everything the SDK warned of.
'use strict';

const { DiagLogLevel, ROOT_CONTEXT, SpanKind, SpanStatusCode, ValueType, diag, trace } =
  require('@opentelemetry/api');
const { SeverityNumber } = require('@opentelemetry/api-logs');
const { resourceFromAttributes } = require('@opentelemetry/resources');
const { BatchLogRecordProcessor, LoggerProvider } = require('@opentelemetry/sdk-logs');
const { AggregationType, MeterProvider, PeriodicExportingMetricReader } =
  require('@opentelemetry/sdk-metrics');
const { BatchSpanProcessor, TracerProvider } = require('@opentelemetry/sdk-trace');

// The package whose name ends with `http` speaks JSON.
const PACKAGES = { grpc: 'grpc', proto: 'proto', json: 'http' };
const PATHS = { traces: '/v1/traces', metrics: '/v1/metrics', logs: '/v1/logs' };
const EXPORTERS = {
  traces: ['trace', 'OTLPTraceExporter', spans => spans.length],
  metrics: ['metrics', 'OTLPMetricExporter', countPoints],
  logs: ['logs', 'OTLPLogExporter', records => records.length],
};
const CLASSES = ['okay', 'wet', 'torn'];
const FLUSHES = 2;
// Longer than the program runs: only flushes collect, so that their number is known.
const INTERVAL_MS = 3_600_000;

const told = {
  made: { traces: 0, metrics: 0, logs: 0 },
  exported: { traces: 0, metrics: 0, logs: 0 },
  failed: { traces: 0, metrics: 0, logs: 0 },
  errors: [],
};

function countPoints(resourceMetrics) {
  return resourceMetrics.scopeMetrics
    .flatMap(scope => scope.metrics)
    .reduce((sum, metric) => sum + metric.dataPoints.length, 0);
}

/** Make the stock exporter of a signal, and look at what it answers. */
function exporterOf(signal, protocol, endpoint) {
  const [name, kind, count] = EXPORTERS[signal];
  const Exporter = require(`@opentelemetry/exporter-${name}-otlp-${PACKAGES[protocol]}`)[kind];
  const url = protocol === 'grpc' ? endpoint : endpoint + PATHS[signal];
  const exporter = new Exporter({ url });
  const send = exporter.export.bind(exporter);
  exporter.export = (items, done) => {
    const n = count(items);
    send(items, result => {
      told[result.code === 0 ? 'exported' : 'failed'][signal] += n;
      if (result.code !== 0) told.errors.push(`${signal}: ${result.error}`);
      done(result);
    });
  };
  return exporter;
}

/** End a trace of two spans, with every kind of attribute, an event and a link. */
function makeTrace(tracer, number) {
  const root = tracer.startSpan('inference', {
    kind: SpanKind.SERVER,
    attributes: {
      'edgeai.model.name': 'damage-net',
      'edgeai.model.version': '3',
      'edgeai.inference.confidence': 0.5 + (number % 50) / 100,
      'edgeai.inference.class': CLASSES[number % CLASSES.length],
      'edgeai.inference.cold_start': number === 0,
      'edgeai.input.width': 640 + number,
      'strings': ['a', 'ü', '漢字'],
      'doubles': [0.5, -1.5e-300],
    },
  });
  const context = trace.setSpan(ROOT_CONTEXT, root);
  const child = tracer.startSpan('preprocess', { links: [{ context: root.spanContext() }] }, context);
  child.addEvent('resized', { width: 320 });
  child.end();
  if (number % 10 === 0) root.setStatus({ code: SpanStatusCode.ERROR, message: 'no frame' });
  root.end();
  told.made.traces += 2;
  return context;
}

function makeLogs(logger, context, number) {
  logger.emit({
    severityNumber: SeverityNumber.WARN,
    severityText: 'WARN',
    body: `frame ${number} is dark`,
    attributes: { 'edgeai.model.name': 'damage-net', 'frame': number, 'dark': true },
    context,
  });
  logger.emit({ body: { text: 'a map', list: [1, 2.5, null] }, eventName: 'device.started' });
  told.made.logs += 2;
}

/** Make instruments of every kind; returns what records once, and the points of a collection. */
function makeInstruments(meter) {
  const requests = meter.createCounter('requests', { valueType: ValueType.INT });
  const queue = meter.createUpDownCounter('queue', { unit: '{frame}' });
  const duration = meter.createHistogram('duration', { unit: 'ms' });
  const size = meter.createHistogram('size', { unit: 'By' });
  const temperature = meter.createGauge('temperature', { unit: 'Cel' });
  meter.createObservableGauge('load').addCallback(result => result.observe(0.25, { core: 0 }));
  meter.createObservableCounter('energy').addCallback(result => result.observe(17));
  const record = (number, context) => {
    const attributes = { class: CLASSES[number % CLASSES.length] };
    requests.add(1, attributes, context);
    queue.add(number % 2 ? -1 : 1);
    duration.record(number, attributes, context);
    size.record(2 ** (number % 40), attributes, context);
    temperature.record(40 - number / 7, { zone: number % 2 });
  };
  const classes = CLASSES.length;
  return [record, classes + 1 + classes + classes + 2 + 1 + 1];
}

async function main(protocol, endpoint, rounds) {
  const note = (...said) => told.errors.push(said.join(' '));
  const quiet = () => {};
  diag.setLogger(
    { error: note, warn: note, info: quiet, debug: quiet, verbose: quiet },
    DiagLogLevel.WARN,
  );
  const resource = resourceFromAttributes({
    'service.name': 'dock-camera',
    'device.id': `js-${protocol}`,
  });
  const tracers = new TracerProvider({
    resource,
    spanProcessors: [new BatchSpanProcessor({ exporter: exporterOf('traces', protocol, endpoint) })],
  });
  const meters = new MeterProvider({
    resource,
    views: [
      {
        instrumentName: 'size',
        aggregation: { type: AggregationType.EXPONENTIAL_HISTOGRAM, options: { maxSize: 160 } },
      },
    ],
    readers: [
      new PeriodicExportingMetricReader({
        exporter: exporterOf('metrics', protocol, endpoint),
        exportIntervalMillis: INTERVAL_MS,
      }),
    ],
  });
  const loggers = new LoggerProvider({
    resource,
    processors: [
      new BatchLogRecordProcessor({ exporter: exporterOf('logs', protocol, endpoint) }),
    ],
  });
  const providers = [tracers, meters, loggers];
  const tracer = tracers.getTracer('dock', '1.2.3');
  const logger = loggers.getLogger('dock', '1.2.3');
  const [record, points] = makeInstruments(meters.getMeter('dock', '1.2.3'));

  for (let flush = 0; flush < FLUSHES; flush += 1) {
    for (let number = 0; number < rounds; number += 1) {
      const context = makeTrace(tracer, number);
      makeLogs(logger, context, number);
      record(number, context);
    }
    await Promise.all(providers.map(provider => provider.forceFlush()));
    told.made.metrics += points;
  }
  await Promise.all(providers.map(provider => provider.shutdown()));
  told.made.metrics += points; // a shutdown collects once more
  console.log(JSON.stringify(told));
}

main(process.argv[2], process.argv[3], Number(process.argv[4])).catch(error => {
  told.errors.push(String(error));
  console.log(JSON.stringify(told));
  process.exitCode = 1;
});
