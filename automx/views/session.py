"""Sessions of requests: Flask-SQLAlchemy, on the metadata of the tables."""

from flask_sqlalchemy import SQLAlchemy

from automx.models import Base

db = SQLAlchemy(metadata=Base.metadata)
